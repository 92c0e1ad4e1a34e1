// All voices and emotion profiles, kept as the fleet has them by its stream of events.
import { create } from "zustand"
import { inWords, type Trouble, wantsKey } from "~/api/errors"
import { allEmotions, allVoices, libraryEvents } from "~/api/library"
import type { Emotion, LibraryEvent, Voice } from "~/api/types"
import { anotherKey, useConnection } from "./connection"

export interface Library {
  voices: Voice[]
  emotions: Emotion[]
  loaded: boolean
  trouble: Trouble | null
  /** Reads everything anew. Never throws: what fails is in `trouble`. */
  refresh: () => Promise<void>
}

/** What is read at the moment; it resolves to why it failed, or to null. */
let reading: Promise<unknown> | null = null
let again = false

export const useLibrary = create<Library>()(() => ({
  voices: [],
  emotions: [],
  loaded: false,
  trouble: null,
  refresh: async () => {
    await readAll()
  },
}))

function readAll(): Promise<unknown> {
  if (reading) {
    again = true
    return reading
  }
  const read = async () => {
    let failure: unknown
    do {
      again = false
      failure = null
      try {
        const [voices, emotions] = await Promise.all([allVoices(), allEmotions()])
        useLibrary.setState({ voices, emotions, loaded: true, trouble: null })
      } catch (error) {
        failure = error
        useLibrary.setState({ trouble: inWords(error) })
      }
    } while (again)
    return failure
  }
  reading = read().finally(() => {
    reading = null
  })
  return reading
}

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

  /** Until it is read: the next event may be long in coming. */
  async function readOn() {
    while (!ending.signal.aborted) {
      const { given } = useConnection.getState()
      const failure = await readAll()
      if (failure === null) return
      if (wantsKey(failure)) await anotherKey(given, ending.signal)
      else await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
    }
  }

  async function follow() {
    while (!ending.signal.aborted) {
      const { given } = useConnection.getState()
      try {
        const events = libraryEvents(ending.signal)
        // Listed behind the opening of the stream, so that no change falls between the two.
        let next = following(events)
        await readOn()
        while (!(await next).done) {
          next = following(events)
          await readOn()
        }
      } catch (error) {
        if (ending.signal.aborted) return
        useLibrary.setState({ trouble: inWords(error) })
        if (wantsKey(error)) await anotherKey(given, ending.signal)
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
