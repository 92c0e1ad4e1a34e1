// How the page looks, as it was chosen in this browser.
import { create } from "zustand"
import { persist } from "zustand/middleware"
import { storage } from "./storage"

export type Theme = "system" | "light" | "dark"

export interface Preferences {
  theme: Theme
  setTheme: (theme: Theme) => void
}

export const usePreferences = create<Preferences>()(
  persist((set) => ({ theme: "system", setTheme: (theme) => set({ theme }) }), { name: "fleet.preferences", storage }),
)

const dark = globalThis.matchMedia?.("(prefers-color-scheme: dark)")

function apply() {
  const { theme } = usePreferences.getState()
  const isDark = theme === "dark" || (theme === "system" && dark?.matches)
  document.documentElement.dataset.theme = isDark ? "dark" : "light"
}

/** Keeps the document in the chosen theme, and the system's where none is. */
export function followTheme(): void {
  apply()
  usePreferences.subscribe(apply)
  dark?.addEventListener("change", apply)
}
