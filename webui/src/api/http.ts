// The one way to the fleet: typed by its OpenAPI document, with the key, and errors of one kind.
import createClient, { type Middleware } from "openapi-fetch"
import { ApiError, Unreachable, wantsKey } from "./errors"
import type { paths } from "./schema"

/** Who keeps the key, and is told of what every request finds out. */
export interface Listener {
  key: () => string
  answered: () => void
  unanswered: () => void
  keyWanted: (reason: string) => void
}

const nothing = () => undefined
let listener: Listener = { key: () => "", answered: nothing, unanswered: nothing, keyWanted: nothing }

export function tell(told: Listener): void {
  listener = told
}

const bearer = (key: string) => (key ? `Bearer ${key}` : "")

const guard: Middleware = {
  onRequest: ({ request }) => {
    const key = listener.key()
    if (key) request.headers.set("Authorization", bearer(key))
  },
  onResponse: async ({ request, response }) => {
    // What is in front of the balancer has such answers too, for one that is away: only /health tells.
    if (response.status < 500) listener.answered()
    if (response.ok) return
    const error = await ApiError.of(response)
    const sent = request.headers.get("Authorization") ?? ""
    if (wantsKey(error) && sent === bearer(listener.key())) listener.keyWanted(error.message)
    throw error
  },
  onError: ({ error }) => {
    if ((error as Error).name === "AbortError") return error as Error
    listener.unanswered()
    return new Unreachable()
  },
}

/**
 * Resolves only for 2xx; throws `ApiError` or `Unreachable`, or the `AbortError` of one's own signal. What breaks off
 * within a body is told so by `bodyOf` and `versioned`.
 */
export const api = createClient<paths>({ baseUrl: globalThis.location?.origin ?? "http://127.0.0.1" })
api.use(guard)

/** The body of an answer that has one. */
export async function bodyOf<T>(answer: Promise<{ data?: T }>): Promise<T> {
  const { data } = await answer.catch(brokenOff)
  if (data === undefined) throw unexpected("the server answered without a body")
  return data
}

/** The body and its version, for `If-Match`. */
export async function versioned<T>(
  answer: Promise<{ data?: T; response: Response }>,
): Promise<{ body: T; version: string }> {
  const { data, response } = await answer.catch(brokenOff)
  return { body: await bodyOf(Promise.resolve({ data: data as T })), version: response.headers.get("etag") ?? "*" }
}

/** Reading a body fails as `fetch` does where the connection is lost, and as JSON does where it is something else. */
function brokenOff(error: Error): never {
  if (error instanceof SyntaxError) throw unexpected("the server answered with something that is not the fleet's")
  if (error instanceof TypeError || error.name === "TimeoutError") throw new Unreachable()
  throw error
}

const unexpected = (message: string) => new ApiError(200, "unexpected_answer", message, null, null)
