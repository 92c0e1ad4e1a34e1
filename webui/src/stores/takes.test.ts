import "fake-indexeddb/auto"
import { beforeEach, expect, it } from "vitest"
import { Sound } from "~/audio/sound"
import { INITIAL } from "./drafts"
import { restOf } from "./speaking"
import { realTimeFactor, type Take, useTakes } from "./takes"

function take(id: string, madeAt: number, durationS = 1): Take {
  return {
    id,
    madeAt,
    text: id,
    settings: INITIAL,
    spokenWith: null,
    segments: [],
    state: "whole",
    trouble: null,
    firstSoundS: 0.1,
    arrivedS: 0.5,
    durationS,
  }
}

const store = () => useTakes.getState()

async function spoken(id: string, madeAt: number, durationS = 1) {
  store().begin(take(id, madeAt, durationS), Sound.of(Int16Array.of(1, 2, madeAt)))
  await store().keep(id)
}

beforeEach(async () => {
  for (const { id } of store().takes) await store().remove(id)
})

it("keeps takes and their sound beyond the page", async () => {
  await spoken("a", 1)
  await spoken("b", 2)
  useTakes.setState({ takes: [] })
  await store().load()
  expect(store().takes.map(({ id }) => id)).toEqual(["b", "a"])
  expect((await store().soundOf("a"))?.samples()).toEqual(Int16Array.of(1, 2, 1))
})

it("puts a deleted take back with its sound", async () => {
  await spoken("a", 1)
  const putBack = await store().remove("a")
  expect(store().takes).toEqual([])
  putBack()
  expect((await store().soundOf("a"))?.samples()).toEqual(Int16Array.of(1, 2, 1))
  expect(store().takes).toHaveLength(1)
})

it("lets the oldest go when there are too many, or they are too large", async () => {
  for (let i = 0; i < 62; i++) await spoken(`t${i}`, i)
  expect(store().takes).toHaveLength(60)
  expect(store().takes.at(-1)?.id).toBe("t2")
  await spoken("long", 100, 4_000)
  await spoken("longer", 101, 4_000)
  expect(store().takes.map(({ id }) => id)).toEqual(["longer"])
})

it("compares two different takes", () => {
  store().compare("a", "x")
  store().compare("b", "y")
  expect([store().a, store().b]).toEqual(["x", "y"])
  store().compare("b", "x")
  expect([store().a, store().b]).toEqual([null, "x"])
})

it("measures how much faster than speech it was, and knows what is left of a text", () => {
  expect(realTimeFactor({ arrivedS: 0.5, durationS: 5 })).toBe(0.1)
  expect(realTimeFactor({ arrivedS: null, durationS: 5 })).toBeNull()
  const segments = [
    { text: "One.", endS: 1 },
    { text: "Two.", endS: null },
    { text: "Three.", endS: null },
  ]
  expect(restOf({ segments })).toBe("Two. Three.")
  expect(restOf({ segments: [] })).toBeNull()
})
