// Server-sent events over fetch, which unlike EventSource can send a key.

import { Unreachable } from "./errors"

export interface ServerEvent {
  event: string
  data: string
  id: string | null
}

/**
 * The events of a `text/event-stream` body (HTML standard, 9.2.6). Ends with the body; an event cut off is dropped.
 *
 * Throws `Unreachable` when the connection is lost, or nothing at all is heard for `silenceMs`: of a connection that a
 * network has dropped, a browser is not told.
 */
export async function* eventsOf(
  body: ReadableStream<Uint8Array>,
  silenceMs: number | null = null,
): AsyncGenerator<ServerEvent> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader()
  let rest = ""
  let event = "message"
  let data: string[] = []
  let id: string | null = null
  try {
    while (true) {
      const { done, value } = await heard(reader.read().catch(lost), silenceMs)
      if (done) return
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/)
      rest = lines.pop() ?? ""
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { event, data: data.join("\n"), id }
          event = "message"
          data = []
          continue
        }
        const colon = line.indexOf(":")
        const field = colon < 0 ? line : line.slice(0, colon)
        const content = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "")
        if (field === "event") event = content
        else if (field === "data") data.push(content)
        else if (field === "id") id = content
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined)
  }
}

function heard<T>(reading: Promise<T>, silenceMs: number | null): Promise<T> {
  if (silenceMs === null) return reading
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Unreachable()), silenceMs)
    reading.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

function lost(error: Error): never {
  throw error.name === "AbortError" ? error : new Unreachable()
}
