// The sound of one take and where in it the listener is. Knows no Web Audio: worklet and fallback both play from it.

/** Samples over which sound rises or falls where it is interrupted: 5 ms at 24 kHz, too short to hear as a fade. */
export const RAMP = 120

/** Samples that must lie ahead before sound begins: 20 ms, less than any first chunk holds. */
const FIRST_FILL = 480

/** Samples that must lie ahead before sound that ran dry goes on: 200 ms, so that it does not stutter. */
const REFILL = 4_800

/** What is between ±32768 becomes ±1. */
const SCALE = 1 / 32_768

/**
 * Samples at 24 kHz that grow while they are played. `pull` never clicks: sound that is paused, moved or runs dry falls
 * and rises again over `RAMP` samples.
 */
export class SampleQueue {
  private readonly chunks: Int16Array[] = []
  private chunkStarts: number[] = []
  private whole = false
  private wanted = false
  private gain = 0
  private dry = true
  private fill = FIRST_FILL
  private jump: number | null = null

  /** The sample that is heard next. */
  position = 0
  /** Samples there are. */
  length = 0
  /** How often the sound ran dry before its end. */
  underruns = 0

  append(samples: Int16Array): void {
    if (!samples.length) return
    this.chunks.push(samples)
    this.chunkStarts.push(this.length)
    this.length += samples.length
  }

  /** Nothing more comes. */
  finish(): void {
    this.whole = true
  }

  play(): void {
    this.wanted = true
  }

  pause(): void {
    this.wanted = false
  }

  /** Go on from another sample, within what there is. */
  seek(position: number): void {
    this.jump = Math.max(0, Math.min(Math.round(position), this.length))
    if (this.gain === 0) this.land()
  }

  get playing(): boolean {
    return this.wanted
  }

  /** Whether the sound is wanted, but has not arrived. */
  get waiting(): boolean {
    return this.wanted && this.dry
  }

  get ended(): boolean {
    return this.whole && this.position >= this.length && this.jump === null
  }

  /** Fills `out` with the next samples, silence where there are none; false once nothing more will be heard. */
  pull(out: Float32Array): boolean {
    out.fill(0)
    if (this.gain === 0 && this.jump !== null) this.land()
    if (this.ended) {
      this.wanted = false
      this.gain = 0
      return false
    }
    if (this.dry && (this.whole || this.length - this.position >= this.fill)) this.dry = false
    if (this.dry || (!this.wanted && this.gain === 0)) return true
    const available = this.length - this.position
    const count = Math.min(out.length, available)
    const runsDry = !this.whole && available < out.length + RAMP
    this.read(out, count)
    if (runsDry && this.wanted) this.runDry()
    this.shape(out, count, this.wanted && this.jump === null && !this.dry)
    this.position += count
    if (this.gain === 0 && this.jump !== null) this.land()
    if (this.ended) this.wanted = false
    return true
  }

  private runDry(): void {
    this.dry = true
    this.fill = REFILL
    this.underruns += 1
  }

  private land(): void {
    this.position = this.jump ?? this.position
    this.jump = null
    this.dry = false
  }

  private read(out: Float32Array, count: number): void {
    let index = this.chunkAt(this.position)
    let filled = 0
    while (filled < count) {
      const chunk = this.chunks[index] as Int16Array
      const from = this.position + filled - (this.chunkStarts[index] as number)
      const taken = Math.min(chunk.length - from, count - filled)
      for (let i = 0; i < taken; i++) out[filled + i] = (chunk[from + i] as number) * SCALE
      filled += taken
      index += 1
    }
  }

  private chunkAt(position: number): number {
    let low = 0
    let high = this.chunkStarts.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if ((this.chunkStarts[middle] as number) <= position) low = middle
      else high = middle - 1
    }
    return low
  }

  /** Lets the first `count` samples rise or fall towards being heard or not. */
  private shape(out: Float32Array, count: number, heard: boolean): void {
    const target = heard ? 1 : 0
    if (this.gain === target) return
    const step = (heard ? 1 : -1) / RAMP
    for (let i = 0; i < count; i++) {
      out[i] = (out[i] as number) * this.gain
      this.gain = Math.max(0, Math.min(1, this.gain + step))
    }
    if (count < out.length && !heard) this.gain = 0
    if (Math.abs(this.gain - target) < 1e-6) this.gain = target
  }
}
