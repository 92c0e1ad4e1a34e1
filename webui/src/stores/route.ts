// Which screen is shown: the part of the address behind the #.
import { create } from "zustand"

export const SCREENS = ["speak", "voices", "emotions", "fleet"] as const
export type Screen = (typeof SCREENS)[number]

/** `rest` is what follows the screen's name, such as an id. */
interface Route {
  screen: Screen
  rest: string
}

function read(): Route {
  const [name = "", rest = ""] = location.hash.replace(/^#\/?/, "").split("/")
  const screen = SCREENS.find((known) => known === name) ?? "speak"
  try {
    return { screen, rest: decodeURIComponent(rest) }
  } catch {
    return { screen, rest: "" }
  }
}

export const useRoute = create<Route>()(() => read())
addEventListener("hashchange", () => useRoute.setState(read()))

export function goTo(screen: Screen, rest = ""): void {
  location.hash = rest ? `/${screen}/${encodeURIComponent(rest)}` : `/${screen}`
}
