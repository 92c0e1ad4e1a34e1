// One take's sound while it arrives and afterwards: samples, and their outline for drawing.
import { SAMPLE_RATE } from "~/api/types"

/** Samples that one value of the outline stands for: 20 ms. */
export const PEAK_SPAN = SAMPLE_RATE / 50

/** Samples at 24 kHz that grow, and the loudest of each 20 ms, from 0 to 1. */
export class Sound {
  readonly chunks: Int16Array[] = []
  readonly peaks: number[] = []
  length = 0
  whole = false
  private loudest = 0

  static of(samples: Int16Array): Sound {
    const sound = new Sound()
    sound.append(samples)
    sound.finish()
    return sound
  }

  get seconds(): number {
    return this.length / SAMPLE_RATE
  }

  append(samples: Int16Array): void {
    this.chunks.push(samples)
    for (const sample of samples) {
      this.loudest = Math.max(this.loudest, Math.abs(sample))
      this.length += 1
      if (this.length % PEAK_SPAN === 0) this.closePeak()
    }
  }

  finish(): void {
    if (!this.whole && this.length % PEAK_SPAN !== 0) this.closePeak()
    this.whole = true
  }

  samples(): Int16Array {
    const joined = new Int16Array(this.length)
    let at = 0
    for (const chunk of this.chunks) {
      joined.set(chunk, at)
      at += chunk.length
    }
    return joined
  }

  private closePeak(): void {
    this.peaks.push(this.loudest / 32_768)
    this.loudest = 0
  }
}

/** An outline of `count` values, each the loudest of its share. */
export function outline(peaks: readonly number[], count: number): number[] {
  return Array.from({ length: count }, (_, i) => {
    const from = Math.floor((i * peaks.length) / count)
    const to = Math.max(from + 1, Math.floor(((i + 1) * peaks.length) / count))
    let loudest = 0
    for (let j = from; j < to && j < peaks.length; j++) loudest = Math.max(loudest, peaks[j] as number)
    return loudest
  })
}

/** A whole WAV file of 16-bit mono samples (RIFF, PCM). */
export function wavOf(samples: Int16Array, sampleRate = SAMPLE_RATE): Blob {
  const header = new DataView(new ArrayBuffer(44))
  const text = (at: number, word: string) => {
    for (let i = 0; i < word.length; i++) header.setUint8(at + i, word.charCodeAt(i))
  }
  text(0, "RIFF")
  header.setUint32(4, 36 + samples.byteLength, true)
  text(8, "WAVEfmt ")
  header.setUint32(16, 16, true)
  header.setUint16(20, 1, true)
  header.setUint16(22, 1, true)
  header.setUint32(24, sampleRate, true)
  header.setUint32(28, sampleRate * 2, true)
  header.setUint16(32, 2, true)
  header.setUint16(34, 16, true)
  text(36, "data")
  header.setUint32(40, samples.byteLength, true)
  return new Blob([header.buffer, samples as BlobPart], { type: "audio/wav" })
}
