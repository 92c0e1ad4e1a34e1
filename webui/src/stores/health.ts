// Asks the fleet how it is, for as long as the page is open: often while it is away, seldom while it is well.
import { ApiError } from "~/api/errors"
import { api, bodyOf } from "~/api/http"
import { useConnection } from "./connection"

const WELL_S = 5
const AWAY_S = 1.5
/** A server that takes the question and says nothing is away, too. */
const PATIENCE_S = 8

/** Returns the function that ends it. */
export function watchHealth(): () => void {
  let timer: ReturnType<typeof setTimeout>
  let over = false

  async function look() {
    clearTimeout(timer)
    try {
      const signal = AbortSignal.timeout(PATIENCE_S * 1000)
      useConnection.getState().setHealth(await bodyOf(api.GET("/health", { cache: "no-store", signal })))
    } catch (error) {
      // Something in front of the balancer may answer in its place.
      if (!(error instanceof ApiError) || error.status >= 500) useConnection.getState().unanswered()
    }
    clearTimeout(timer)
    if (!over) timer = setTimeout(look, 1000 * (useConnection.getState().status === "up" ? WELL_S : AWAY_S))
  }

  const wake = () => document.visibilityState === "visible" && look()
  document.addEventListener("visibilitychange", wake)
  window.addEventListener("online", look)
  look()
  return () => {
    over = true
    clearTimeout(timer)
    document.removeEventListener("visibilitychange", wake)
    window.removeEventListener("online", look)
  }
}
