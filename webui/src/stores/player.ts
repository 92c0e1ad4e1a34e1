// What is heard: one take at a time, all over the page.
import { create } from "zustand"
import { SAMPLE_RATE } from "~/api/types"
import { awakeContext, type Output, openOutput } from "~/audio/output"
import type { PlayerCommand, PlayerReport } from "~/audio/playerCommands"
import type { Sound } from "~/audio/sound"

export interface Player {
  /** The take that is loaded. */
  takeId: string | null
  sound: Sound | null
  /** Seconds. */
  position: number
  playing: boolean
  waiting: boolean
  ended: boolean
  underruns: number
  /** Loads a sound, as it is so far, and plays it from `from` seconds on. To be called from a click or a key. */
  start: (takeId: string, sound: Sound, from?: number) => void
  /** Sound that has just arrived for the take. */
  append: (takeId: string, samples: Int16Array) => void
  finish: (takeId: string) => void
  toggle: () => void
  pause: () => void
  seek: (seconds: number) => void
  unload: (takeId: string) => void
}

let output: Promise<Output> | null = null

const idle = { position: 0, playing: false, waiting: false, ended: false, underruns: 0 }

export const usePlayer = create<Player>()((set, get) => {
  function heard(report: PlayerReport) {
    set({ ...report, position: report.position / SAMPLE_RATE })
  }

  // Commands wait for the worklet to be there, in order.
  const command = (...commands: PlayerCommand[]) => {
    output ??= openOutput(heard)
    void output.then((opened) => opened.send(commands))
  }

  return {
    takeId: null,
    sound: null,
    ...idle,
    start: (takeId, sound, from = 0) => {
      awakeContext()
      set({ ...idle, takeId, sound, position: from, playing: true })
      command(
        { do: "load" },
        ...sound.chunks.map((samples) => ({ do: "append" as const, samples })),
        ...(sound.whole ? [{ do: "finish" as const }] : []),
        { do: "seek", position: from * SAMPLE_RATE },
        { do: "play" },
      )
    },
    append: (takeId, samples) => {
      if (get().takeId === takeId) command({ do: "append", samples })
    },
    finish: (takeId) => {
      if (get().takeId === takeId) command({ do: "finish" })
    },
    toggle: () => {
      const { playing, ended, sound, position } = get()
      if (!sound) return
      awakeContext()
      if (playing) command({ do: "pause" })
      else if (ended || (sound.whole && position >= sound.seconds)) command({ do: "seek", position: 0 }, { do: "play" })
      else command({ do: "play" })
    },
    pause: () => {
      if (output && get().playing) command({ do: "pause" })
    },
    seek: (seconds) => command({ do: "seek", position: seconds * SAMPLE_RATE }),
    unload: (takeId) => {
      if (get().takeId !== takeId) return
      if (output) command({ do: "pause" }, { do: "load" })
      set({ takeId: null, sound: null, ...idle })
    },
  }
})
