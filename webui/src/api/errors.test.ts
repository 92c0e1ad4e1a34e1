import { expect, it } from "vitest"
import { ApiError, CutShort, inWords, Refused, Unreachable } from "./errors"

it("tells the server's own words, its request id, and when to try again", async () => {
  const body = { error: { code: "queue_full", message: "512 requests wait", param: null, request_id: "r1" } }
  const error = await ApiError.of(new Response(JSON.stringify(body), { status: 429, headers: { "retry-after": "3" } }))
  expect(inWords(error)).toEqual({
    title: "The fleet is busy",
    detail: "512 requests wait. Try again in 3 s.",
    requestId: "r1",
  })
})

it("tells an answer that is not in the fleet's shape by its status", async () => {
  const error = await ApiError.of(new Response("<h1>nginx</h1>", { status: 502, headers: { "x-request-id": "r2" } }))
  expect([error.code, inWords(error).requestId]).toEqual(["unexpected_answer", "r2"])
  expect(inWords(error).detail).toContain("502")
})

it("has words for every kind of failure", () => {
  expect(inWords(new Unreachable()).title).toBe("The server does not answer")
  expect(inWords(new CutShort("a worker was lost", "r3"))).toEqual({
    title: "The sound was cut short",
    detail: "A worker was lost.",
    requestId: "r3",
  })
  expect(inWords(new Refused("This file is too long.")).title).toBe("This file is too long.")
  expect(inWords("odd").detail).toBe("Odd.")
})
