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

const guard: Middleware = {
  onRequest: ({ request }) => {
    const key = listener.key()
    if (key) request.headers.set("Authorization", `Bearer ${key}`)
  },
  onResponse: async ({ response }) => {
    listener.answered()
    if (response.ok) return
    const error = await ApiError.of(response)
    if (wantsKey(error)) listener.keyWanted(error.message)
    throw error
  },
  onError: ({ error }) => {
    if ((error as Error).name === "AbortError") return error as Error
    listener.unanswered()
    return new Unreachable()
  },
}

/** Resolves only for 2xx; throws `ApiError` or `Unreachable`, or the `AbortError` of one's own signal. */
export const api = createClient<paths>({ baseUrl: globalThis.location?.origin ?? "http://127.0.0.1" })
api.use(guard)

/** The body of an answer that has one. */
export async function bodyOf<T>(answer: Promise<{ data?: T }>): Promise<T> {
  const { data } = await answer
  if (data === undefined) throw new ApiError(200, "unexpected_answer", "the server answered without a body", null, null)
  return data
}

/** The body and its version, for `If-Match`. */
export async function versioned<T>(
  answer: Promise<{ data?: T; response: Response }>,
): Promise<{ body: T; version: string }> {
  const { data, response } = await answer
  return { body: await bodyOf(Promise.resolve({ data: data as T })), version: response.headers.get("etag") ?? "*" }
}
