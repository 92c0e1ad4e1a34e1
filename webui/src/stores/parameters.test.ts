import { expect, it } from "vitest"
import { inheritedFrom, PARAMETERS, whyIgnored, within } from "./parameters"

const NONE = Object.fromEntries(PARAMETERS.map(({ name }) => [name, null])) as unknown as Parameters<
  typeof inheritedFrom
>[0]

it("takes a value from the emotion, else the voice, else upstream's default, as the fleet does", () => {
  const emotion = { ...NONE, name: "merry", exaggeration: 0.9 } as Parameters<typeof inheritedFrom>[0]
  const voice = { name: "Anna", defaults: { exaggeration: 0.1, temperature: 0.6 } }
  const inherited = inheritedFrom(emotion, voice)
  expect(inherited.exaggeration).toEqual({ value: 0.9, from: "from merry" })
  expect(inherited.temperature).toEqual({ value: 0.6, from: "from Anna" })
  expect(inherited.min_p).toEqual({ value: 0.05, from: "default" })
})

it("says why a parameter does nothing, and nothing where that is not known", () => {
  expect(whyIgnored("min_p", ["exaggeration"])).toContain("does not use this")
  expect(whyIgnored("exaggeration", ["exaggeration"])).toBeNull()
  expect(whyIgnored("min_p", null)).toBeNull()
})

it("keeps what is typed within what the fleet takes", () => {
  const limits = { least: 0, most: 2 }
  expect([within(limits, "0,7"), within(limits, "-3"), within(limits, "9"), within(limits, "")]).toEqual([
    0.7,
    0,
    2,
    null,
  ])
  expect(within(limits, "loud")).toBeNull()
})

it("takes whole numbers alone where it is a count that is typed, as the fleet does", () => {
  const counts = PARAMETERS.filter(({ whole }) => whole)
  expect(counts.map(({ name }) => name)).toEqual(["top_k"])
  expect(counts.map((count) => within(count, "40,6"))).toEqual([41])
})
