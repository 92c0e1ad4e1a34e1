// What can go wrong between the page and the fleet, said for a person.
import type { ErrorBody } from "./types"

/** The fleet answered with an error of its own. `param` names the field at fault; `retryAfter` is in seconds. */
export class ApiError extends Error {
  override readonly name = "ApiError"

  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly param: string | null,
    readonly requestId: string | null,
    readonly retryAfter: number | null = null,
  ) {
    super(message)
  }

  /** From an answer whose status is 400 or more; what is not in the fleet's shape is said by its status. */
  static async of(response: Response): Promise<ApiError> {
    return ApiError.from(response, await response.json().catch(() => null))
  }

  static from(response: Response, body: unknown): ApiError {
    const detail = (body as ErrorBody | null)?.error
    const wait = Number(response.headers.get("retry-after"))
    return new ApiError(
      response.status,
      detail?.code ?? "unexpected_answer",
      detail?.message ?? `the server answered ${response.status} ${response.statusText}`.trim(),
      detail?.param ?? null,
      detail?.request_id ?? response.headers.get("x-request-id"),
      wait > 0 ? wait : null,
    )
  }
}

/** Whether it is a key, or another one, that is wanted. */
export function wantsKey(error: unknown): boolean {
  return error instanceof ApiError && error.code === "invalid_api_key"
}

/** Whether it is somebody else who may do this. */
export function isForAdministrators(error: unknown): boolean {
  return error instanceof ApiError && error.code === "not_administrator"
}

/** Nothing answered: the server is down, or the network between. */
export class Unreachable extends Error {
  override readonly name = "Unreachable"

  constructor() {
    super("the server does not answer")
  }
}

/** The sound ended before it was whole, for a reason that the stream told or by a lost connection. */
export class CutShort extends Error {
  override readonly name = "CutShort"

  constructor(
    message: string,
    readonly requestId: string | null,
  ) {
    super(message)
  }
}

/** What the page itself refuses, with a message for a person. */
export class Refused extends Error {
  override readonly name = "Refused"
}

export interface Trouble {
  title: string
  detail: string
  /** What the server's log has it under. */
  requestId: string | null
}

const TITLES: Record<string, string> = {
  invalid_api_key: "A key is needed",
  not_administrator: "Only an administrator may do this",
  text_too_long: "The text is too long",
  nothing_to_speak: "There is nothing to speak",
  voice_not_found: "This voice is no longer there",
  emotion_not_found: "This emotion is no longer there",
  overloaded: "The fleet is busy",
  queue_full: "The fleet is busy",
  not_ready: "No worker is ready",
  name_taken: "This name is taken",
}

/** An error in plain words. */
export function inWords(error: unknown): Trouble {
  if (error instanceof ApiError) {
    const title = TITLES[error.code] ?? (error.status >= 500 ? "The server could not do this" : "This was refused")
    const wait = error.retryAfter === null ? "" : ` Try again in ${error.retryAfter} s.`
    return { title, detail: sentence(error.message) + wait, requestId: error.requestId }
  }
  if (error instanceof CutShort) {
    return { title: "The sound was cut short", detail: sentence(error.message), requestId: error.requestId }
  }
  if (error instanceof Unreachable) {
    return {
      title: "The server does not answer",
      detail: "What you have written is kept here. The page goes on trying to reach it.",
      requestId: null,
    }
  }
  if (error instanceof Refused) return { title: error.message, detail: "", requestId: null }
  return {
    title: "Something went wrong",
    detail: sentence(String((error as Error)?.message ?? error)),
    requestId: null,
  }
}

function sentence(text: string): string {
  const said = text.charAt(0).toUpperCase() + text.slice(1)
  return /[.!?]$/.test(said) ? said : `${said}.`
}
