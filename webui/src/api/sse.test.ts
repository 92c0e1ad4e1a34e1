import { expect, it } from "vitest"
import { Unreachable } from "./errors"
import { eventsOf } from "./sse"

function bodyOf(...parts: (string | Uint8Array)[]): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder()
  return new ReadableStream({
    start: (controller) => {
      for (const part of parts) controller.enqueue(typeof part === "string" ? encoder.encode(part) : part)
      controller.close()
    },
  })
}

async function read(body: ReadableStream<Uint8Array>) {
  const events = []
  for await (const event of eventsOf(body)) events.push(event)
  return events
}

it("reads events however they are cut, and drops one that is cut off", async () => {
  const told = ": hello\r\n\r\nevent: a\ndata: 1\ndata:2\nid: 7\n\ndata: ä\n\nevent: b\ndata: lost"
  const bytes = new TextEncoder().encode(told)
  const expected = [
    { event: "a", data: "1\n2", id: "7" },
    { event: "message", data: "ä", id: "7" },
  ]
  for (const cut of [1, 2, 3, 1_000]) {
    const parts = Array.from({ length: Math.ceil(bytes.length / cut) }, (_, i) => bytes.slice(i * cut, (i + 1) * cut))
    expect(await read(bodyOf(...parts))).toEqual(expected)
  }
})

it("takes a stream that says nothing for too long for a lost one, and lets go of it", async () => {
  let left = false
  const silent = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new TextEncoder().encode("data: 1\n\n")),
    cancel: () => {
      left = true
    },
  })
  const events = eventsOf(silent, 50)
  expect((await events.next()).value?.data).toBe("1")
  await expect(events.next()).rejects.toThrow(Unreachable)
  expect(left).toBe(true)
})
