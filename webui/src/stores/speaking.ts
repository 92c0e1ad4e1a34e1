// One generation at a time: from the request to the last sample, measured on the way.
import { create } from "zustand"
import { inWords } from "~/api/errors"
import { speak } from "~/api/speech"
import { awakeContext } from "~/audio/output"
import { Sound } from "~/audio/sound"
import { current, newId, requestOf, type Settings, useDrafts } from "./drafts"
import { usePlayer } from "./player"
import { usePreviews } from "./previews"
import { type Take, useTakes } from "./takes"

export interface Speaking {
  /** `waiting` for the first sound, `arriving` until the last. */
  status: "idle" | "waiting" | "arriving"
  /** The take that is being made, or was last. */
  takeId: string | null
  sound: Sound | null
  /** Grows with the sound, for whoever draws it. */
  revision: number
  generate: (text: string, settings: Settings) => Promise<void>
  stop: () => void
}

let ending: AbortController | null = null

export const useSpeaking = create<Speaking>()((set, get) => ({
  status: "idle",
  takeId: null,
  sound: null,
  revision: 0,
  generate: async (text, settings) => {
    get().stop()
    usePreviews.getState().stop()
    usePlayer.getState().pause()
    awakeContext()
    ending = new AbortController()
    const { signal } = ending
    const sound = new Sound()
    const take = newTake(text, settings)
    useTakes.getState().begin(take, sound)
    set({ status: "waiting", takeId: take.id, sound, revision: 0 })
    const outcome = await receive(take.id, sound, requestOf(text, settings), signal, set)
    sound.finish()
    usePlayer.getState().finish(take.id)
    if (sound.length || outcome.state === "whole") {
      useTakes.getState().update(take.id, { ...outcome, durationS: sound.seconds })
      void useTakes.getState().keep(take.id)
    } else if (outcome.state === "stopped") {
      await useTakes.getState().remove(take.id) // before it had made a sound
    } else {
      useTakes.getState().update(take.id, outcome) // so that the failure is said; it is not kept
    }
    if (get().takeId === take.id) set(({ revision }) => ({ status: "idle", revision: revision + 1 }))
  },
  stop: () => {
    ending?.abort()
    ending = null
  },
}))

type Outcome = Pick<Take, "state" | "trouble">

async function receive(
  id: string,
  sound: Sound,
  request: ReturnType<typeof requestOf>,
  signal: AbortSignal,
  set: typeof useSpeaking.setState,
): Promise<Outcome> {
  const update = (change: Partial<Take>) => useTakes.getState().update(id, change)
  const began = performance.now()
  const draft = current(useDrafts.getState()).id
  const elapsed = () => (performance.now() - began) / 1000
  const drawing = new Drawing(() => {
    update({ durationS: sound.seconds })
    set(({ takeId, revision }) => (takeId === id ? { revision: revision + 1 } : {}))
  })
  const segments: Take["segments"] = []
  try {
    for await (const piece of speak(request, signal)) {
      if (piece.kind === "samples") {
        const isFirst = sound.length === 0
        sound.append(piece.samples)
        if (isFirst) {
          update({ firstSoundS: elapsed() })
          set(({ takeId }) => (takeId === id ? { status: "arriving" } : {}))
          usePlayer.getState().start(id, sound)
        } else {
          usePlayer.getState().append(id, piece.samples)
        }
        drawing.soon()
      } else if (piece.kind === "segments") {
        segments.push(...piece.texts.map((text) => ({ text, endS: null })))
        update({ segments: [...segments] })
      } else if (piece.kind === "segment done") {
        const segment = segments[piece.index]
        if (segment) segments[piece.index] = { ...segment, endS: piece.audioS }
        update({ segments: [...segments] })
      } else {
        update({ spokenWith: piece.with })
        rememberSeed(draft, piece.with.seed)
      }
    }
    update({ arrivedS: elapsed() })
    return { state: "whole", trouble: null }
  } catch (error) {
    if (signal.aborted) return { state: "stopped", trouble: null }
    return { state: "cut short", trouble: inWords(error) }
  } finally {
    drawing.end()
  }
}

/** Runs something at most once a frame. */
class Drawing {
  private frame: number | null = null

  constructor(private readonly draw: () => void) {}

  soon(): void {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null
      this.draw()
    })
  }

  end(): void {
    if (this.frame !== null) cancelAnimationFrame(this.frame)
  }
}

/** The seed that was drawn is at hand to be locked, in the draft that it was drawn for. */
export function rememberSeed(draft: string, told: string): void {
  const seed = Number(told)
  const { id, settings } = current(useDrafts.getState())
  if (told && Number.isSafeInteger(seed) && id === draft && !settings.seedLocked) useDrafts.getState().change({ seed })
}

function newTake(text: string, settings: Settings): Take {
  return {
    id: newId(),
    madeAt: Date.now(),
    text,
    settings: structuredClone(settings),
    spokenWith: null,
    segments: [],
    state: "arriving",
    trouble: null,
    firstSoundS: null,
    arrivedS: null,
    durationS: 0,
  }
}

/** What has not been spoken of a take that was cut short; null where that is not known. */
export function restOf({ segments }: Pick<Take, "segments">): string | null {
  const at = segments.findIndex(({ endS }) => endS === null)
  if (at < 0) return null
  return segments
    .slice(at)
    .map(({ text }) => text)
    .join(" ")
}
