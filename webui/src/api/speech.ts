// Speech as it is made: the fleet's stream of events, decoded.
import { CutShort, Unreachable } from "./errors"
import { api } from "./http"
import { eventsOf } from "./sse"
import type { ErrorBody, SpeechEvent, StreamRequest } from "./types"

export interface SpokenWith {
  engine: string
  voice: string
  emotion: string | null
  language: string | null
  seed: string
  worker: string | null
  ignored: string[]
  requestId: string | null
}

export type SpeechPiece =
  | { kind: "spoken with"; with: SpokenWith }
  | { kind: "segments"; texts: string[] }
  | { kind: "segment done"; index: number; audioS: number }
  | { kind: "samples"; samples: Int16Array }

/**
 * Speaks a text. The samples are 16-bit, mono, 24 kHz.
 *
 * Throws `ApiError` where it was refused before the first sound, `CutShort` where the sound broke off, `Unreachable`, or
 * the `AbortError` of `signal`.
 */
export async function* speak(request: Omit<StreamRequest, "format" | "stream_format">, signal: AbortSignal) {
  const { data, response } = await api.POST("/synthesize/stream", {
    body: { ...request, format: "pcm", stream_format: "sse" },
    parseAs: "stream",
    signal,
  })
  yield { kind: "spoken with", with: spokenWith(response.headers) } satisfies SpeechPiece
  if (!data) throw new Unreachable()
  yield* pieces(data as unknown as ReadableStream<Uint8Array>, response.headers.get("x-request-id"), signal)
}

async function* pieces(
  body: ReadableStream<Uint8Array>,
  requestId: string | null,
  signal: AbortSignal,
): AsyncGenerator<SpeechPiece> {
  const joiner = new SampleJoiner()
  try {
    for await (const { event, data } of eventsOf(body)) {
      if (event === "error") {
        const { error } = JSON.parse(data) as ErrorBody
        throw new CutShort(error.message, error.request_id ?? requestId)
      }
      const told = JSON.parse(data) as SpeechEvent
      if (told.type === "speech.audio.delta") {
        const samples = joiner.add(bytesOf(told.audio))
        if (samples.length) yield { kind: "samples", samples }
      } else if (told.type === "speech.segments") {
        yield { kind: "segments", texts: told.segments }
      } else if (told.type === "speech.segment.done") {
        yield { kind: "segment done", index: told.index, audioS: told.audio_s }
      } else if (told.type === "speech.audio.done") {
        return
      }
    }
  } catch (error) {
    if (signal.aborted || error instanceof CutShort) throw error
    throw new CutShort("the connection was lost while the sound arrived", requestId)
  }
  throw new CutShort("the connection ended before the sound did", requestId)
}

/** Pieces of a stream of 16-bit samples; a piece may end in the middle of one. */
class SampleJoiner {
  private odd: number | null = null

  add(bytes: Uint8Array): Int16Array {
    const held = this.odd === null ? 0 : 1
    const whole = (held + bytes.length) & ~1
    const joined = new Uint8Array(whole)
    if (this.odd !== null) joined[0] = this.odd
    joined.set(bytes.subarray(0, whole - held), held)
    this.odd = held + bytes.length > whole ? (bytes.at(-1) ?? null) : null
    return new Int16Array(joined.buffer)
  }
}

function bytesOf(base64: string): Uint8Array {
  const text = atob(base64)
  const bytes = new Uint8Array(text.length)
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i)
  return bytes
}

function spokenWith(headers: Headers): SpokenWith {
  return {
    engine: headers.get("x-engine") ?? "",
    voice: headers.get("x-voice") ?? "",
    emotion: headers.get("x-emotion"),
    language: headers.get("x-language"),
    seed: headers.get("x-seed") ?? "",
    worker: headers.get("x-worker"),
    ignored: (headers.get("x-ignored-parameters") ?? "").split(",").filter(Boolean),
    requestId: headers.get("x-request-id"),
  }
}
