// Short samples that are played in passing: one at a time, fetched once.
import { create } from "zustand"
import { showError } from "./notices"
import { usePlayer } from "./player"

interface Previews {
  /** What is being fetched or heard. */
  current: string | null
  loading: boolean
  /** Plays what `fetch` gives under this key, or stops it when it is playing. */
  toggle: (key: string, fetch: () => Promise<Blob>) => Promise<void>
  stop: () => void
}

const MOST_KEPT = 24
const kept = new Map<string, string>()
let element: HTMLAudioElement | null = null

function keep(key: string, blob: Blob): string {
  const url = URL.createObjectURL(blob)
  kept.set(key, url)
  for (const [oldest, oldUrl] of kept) {
    if (kept.size <= MOST_KEPT) break
    kept.delete(oldest)
    URL.revokeObjectURL(oldUrl)
  }
  return url
}

export const usePreviews = create<Previews>()((set, get) => ({
  current: null,
  loading: false,
  toggle: async (key, fetch) => {
    if (get().current === key) {
      get().stop()
      return
    }
    get().stop()
    usePlayer.getState().pause()
    // Made in the click itself: browsers let no page sound before one.
    element = new Audio()
    const mine = element
    mine.onended = () => get().current === key && set({ current: null })
    set({ current: key, loading: true })
    try {
      const url = kept.get(key) ?? keep(key, await fetch())
      if (element !== mine) return
      set({ loading: false })
      mine.src = url
      await mine.play()
    } catch (error) {
      if (element !== mine) return
      set({ current: null, loading: false })
      showError(error)
    }
  },
  stop: () => {
    element?.pause()
    element = null
    set({ current: null, loading: false })
  },
}))

// A take that begins to sound ends the sample.
usePlayer.subscribe((now, before) => {
  if (now.playing && !before.playing && usePreviews.getState().current !== null) usePreviews.getState().stop()
})
