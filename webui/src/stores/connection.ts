// Whether the fleet answers, what it is, and the key it is asked with.
import { create } from "zustand"
import { persist } from "zustand/middleware"
import type { BalancerHealth } from "~/api/types"

export interface Connection {
  status: "unknown" | "up" | "down"
  health: BalancerHealth | null
  key: string
  /** Why a key is asked for, in the server's words; null while none is. */
  keyWanted: string | null
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
      setKey: (key) => set({ key: key.trim(), keyWanted: null }),
      wantKey: (keyWanted) => set({ keyWanted }),
      dismissKey: () => set({ keyWanted: null }),
      answered: () => set((now) => (now.status === "up" ? now : { status: "up" })),
      unanswered: () => set((now) => (now.status === "down" ? now : { status: "down" })),
      setHealth: (health) => set({ health }),
    }),
    { name: "fleet.key", partialize: ({ key }) => ({ key }) },
  ),
)
