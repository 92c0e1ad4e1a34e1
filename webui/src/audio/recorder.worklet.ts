// Hands on what the microphone hears, a quantum at a time.
import { register, WorkletProcessor } from "./workletScope"

class Microphone extends WorkletProcessor {
  override process([channels]: Float32Array[][]): boolean {
    const heard = channels?.[0]
    if (heard?.length) {
      const copy = heard.slice()
      this.port.postMessage(copy, [copy.buffer])
    }
    return true
  }
}

register("microphone", Microphone)
