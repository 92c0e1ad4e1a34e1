// This browser's storage, which may be full or forbidden: then the page goes on without it, and says so once.
import { createJSONStorage } from "zustand/middleware"
import { useNotices } from "./notices"

let told = false

function attempt<T>(work: () => T): T | null {
  try {
    return work()
  } catch {
    if (!told) {
      told = true
      const detail = "It is full, or forbidden for this page. Export your drafts before you close this tab."
      useNotices.getState().show({ tone: "bad", title: "This browser keeps nothing for the page", detail }, 30_000)
    }
    return null
  }
}

export const storage = createJSONStorage(() => ({
  getItem: (name) => attempt(() => localStorage.getItem(name)),
  setItem: (name, value) => attempt(() => localStorage.setItem(name, value)),
  removeItem: (name) => attempt(() => localStorage.removeItem(name)),
}))
