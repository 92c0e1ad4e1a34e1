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
      keyWanted: null,
      hasKeys: false,
      setKey: (key) => set({ key: key.trim(), keyWanted: null }),
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

/** Until another key is given, or the signal is aborted: nothing is gained by asking again with the same. */
export function anotherKey(signal: AbortSignal): Promise<void> {
  const { key } = useConnection.getState()
  return new Promise((resolve) => {
    const over = () => {
      unsubscribe()
      resolve()
    }
    const unsubscribe = useConnection.subscribe((now) => now.key !== key && over())
    signal.addEventListener("abort", over)
  })
}
