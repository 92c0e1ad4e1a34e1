// What a player is told, and what it tells: between the page and the audio thread.
import { SampleQueue } from "./sampleQueue"

export type PlayerCommand =
  | { do: "load" | "finish" | "play" | "pause" }
  | { do: "append"; samples: Int16Array }
  | { do: "seek"; position: number }

/** `position` in samples; `waiting` while sound is wanted that has not arrived. */
export interface PlayerReport {
  position: number
  playing: boolean
  waiting: boolean
  underruns: number
  ended: boolean
}

/** Does to a queue what a command says; a new one stands in its place after `load`. */
export function obey(queue: SampleQueue, command: PlayerCommand): SampleQueue {
  if (command.do === "load") return new SampleQueue()
  if (command.do === "append") queue.append(command.samples)
  else if (command.do === "seek") queue.seek(command.position)
  else queue[command.do]()
  return queue
}
