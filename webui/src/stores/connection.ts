// Whether the fleet answers, what it is, and the key it is asked with.
import { create } from "zustand"
import { persist } from "zustand/middleware"
import { tell } from "~/api/http"
import type { BalancerHealth } from "~/api/types"
import { storage } from "./storage"

export interface Connection {
  status: "unknown" | "up" | "down"
  health: BalancerHealth | null
  key: string
  /** How often one has been given since the page was opened. */
  given: number
  /** Why a key is asked for, in the server's words; null while none is. */
  keyWanted: string | null
  /** Whether the fleet has asked for one since the page was opened. */
  hasKeys: boolean
  setKey: (key: string) => void
  wantKey: (reason: string) => void
  dismissKey: () => void
  answered: () => void
  unanswered: () => void
  setHealth: (health: BalancerHealth) => void
}

export const useConnection = create<Connection>()(
  persist(
    (set) => ({
      status: "unknown",
      health: null,
      key: "",
      given: 0,
      keyWanted: null,
      hasKeys: false,
      setKey: (key) => set(({ given }) => ({ key: key.trim(), given: given + 1, keyWanted: null })),
      wantKey: (keyWanted) => set({ keyWanted, hasKeys: true }),
      dismissKey: () => set({ keyWanted: null }),
      answered: () => set((now) => (now.status === "up" ? now : { status: "up" })),
      unanswered: () => set((now) => (now.status === "down" ? now : { status: "down" })),
      setHealth: (health) => set({ health }),
    }),
    { name: "fleet.key", storage, partialize: ({ key }) => ({ key }) },
  ),
)

tell({
  key: () => useConnection.getState().key,
  answered: () => useConnection.getState().answered(),
  unanswered: () => useConnection.getState().unanswered(),
  keyWanted: (reason) => useConnection.getState().wantKey(reason),
})

/** Whether it can be sent at all: a header takes no other signs, and a key is one word. */
export function canBeKey(typed: string): boolean {
  return /^[!-~]+$/.test(typed.trim())
}

/**
 * Until a key is given after the first `given` of them, be it the same, or the signal is aborted: nothing is gained by
 * asking again before.
 */
export function anotherKey(given: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const over = () => {
      if (useConnection.getState().given === given && !signal.aborted) return
      unsubscribe()
      signal.removeEventListener("abort", over)
      resolve()
    }
    const unsubscribe = useConnection.subscribe(over)
    signal.addEventListener("abort", over)
    over()
  })
}
