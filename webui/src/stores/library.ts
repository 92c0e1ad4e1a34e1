// All voices and emotion profiles, kept as the fleet has them by its stream of events.
import { create } from "zustand"
import { inWords, type Trouble, wantsKey } from "~/api/errors"
import { allEmotions, allVoices, libraryEvents } from "~/api/library"
import type { Emotion, LibraryEvent, Voice } from "~/api/types"
import { anotherKey } from "./connection"

export interface Library {
  voices: Voice[]
  emotions: Emotion[]
  loaded: boolean
  trouble: Trouble | null
  /** Reads everything anew. Never throws: what fails is in `trouble`. */
  refresh: () => Promise<void>
}

let reading: Promise<void> | null = null
let again = false

export const useLibrary = create<Library>()((set) => ({
  voices: [],
  emotions: [],
  loaded: false,
  trouble: null,
  refresh: () => {
    if (reading) {
      again = true
      return reading
    }
    const read = async () => {
      do {
        again = false
        try {
          const [voices, emotions] = await Promise.all([allVoices(), allEmotions()])
          set({ voices, emotions, loaded: true, trouble: null })
        } catch (error) {
          set({ trouble: inWords(error) })
        }
      } while (again)
    }
    reading = read().finally(() => {
      reading = null
    })
    return reading
  },
}))

const RETRY_MS = 1500

/** The next event, whose failure may wait until it is asked for. */
function following(events: AsyncGenerator<LibraryEvent>): Promise<IteratorResult<LibraryEvent>> {
  const next = events.next()
  next.catch(() => undefined)
  return next
}

/** Follows the library for as long as the page is open. Returns the function that ends it. */
export function watchLibrary(): () => void {
  const ending = new AbortController()

  async function follow() {
    while (!ending.signal.aborted) {
      try {
        const events = libraryEvents(ending.signal)
        // Listed behind the opening of the stream, so that no change falls between the two.
        let next = following(events)
        await useLibrary.getState().refresh()
        while (!(await next).done) {
          next = following(events)
          await useLibrary.getState().refresh()
        }
      } catch (error) {
        if (ending.signal.aborted) return
        useLibrary.setState({ trouble: inWords(error) })
        if (wantsKey(error)) await anotherKey(ending.signal)
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
    }
  }

  void follow()
  return () => ending.abort()
}

/** The voice that speaks where none is chosen. */
export function defaultVoice(voices: readonly Voice[]): Voice | undefined {
  return voices.find((voice) => voice.default) ?? voices.find((voice) => voice.builtin) ?? voices[0]
}
