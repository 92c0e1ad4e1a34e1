import { expect, it } from "vitest"
import { anotherKey, canBeKey, useConnection } from "./connection"

it("waits for a key to be given, be it the same again, and not for one that came before", async () => {
  const { given, setKey } = useConnection.getState()
  const { signal } = new AbortController()
  let over = 0
  const waiting = anotherKey(given, signal).then(() => over++)
  useConnection.getState().wantKey("a key is needed")
  await Promise.resolve()
  expect(over).toBe(0)
  setKey(useConnection.getState().key)
  await waiting
  await anotherKey(given, signal) // it was given while the last question was on its way
  const ending = new AbortController()
  const ended = anotherKey(given + 1, ending.signal)
  ending.abort()
  await ended
})

it("knows what no header can carry", () => {
  expect(["my—key", "two words", "ключ", "", " "].filter(canBeKey)).toEqual([])
  expect(canBeKey(" aB1._~+-0123456789 ")).toBe(true)
})
