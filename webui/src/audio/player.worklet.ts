// Plays one take on the audio thread, where nothing the page does can hold it up.
import { obey, type PlayerCommand, type PlayerReport } from "./playerCommands"
import { SampleQueue } from "./sampleQueue"
import { register, WorkletProcessor } from "./workletScope"

/** Quanta of 128 samples between two reports: 43 ms. */
const REPORT_EVERY = 8

class TakePlayer extends WorkletProcessor {
  private queue = new SampleQueue()
  /** The take before, which fades out under this one. */
  private leaving: SampleQueue | null = null
  private quanta = 0

  constructor() {
    super()
    this.port.onmessage = ({ data }: MessageEvent<PlayerCommand[]>) => {
      for (const command of data) this.obey(command)
      if (data.some((command) => command.do !== "append")) this.report()
    }
  }

  override process(_inputs: Float32Array[][], [channels]: Float32Array[][]): boolean {
    const out = channels?.[0]
    if (!out) return true
    const wasPlaying = this.queue.playing
    this.queue.pull(out)
    if (this.leaving) {
      const faded = new Float32Array(out.length)
      this.leaving.pull(faded)
      for (let i = 0; i < out.length; i++) out[i] = (out[i] as number) + (faded[i] as number)
      this.leaving = null
    }
    if (wasPlaying && (++this.quanta % REPORT_EVERY === 0 || !this.queue.playing)) this.report()
    return true
  }

  private obey(command: PlayerCommand): void {
    if (command.do === "load") {
      this.leaving = this.queue
      this.leaving.pause()
    }
    this.queue = obey(this.queue, command)
  }

  private report(): void {
    const { position, playing, waiting, underruns, ended } = this.queue
    this.port.postMessage({ position, playing, waiting, underruns, ended } satisfies PlayerReport)
  }
}

register("take-player", TakePlayer)
