import { expect, it } from "vitest"
import type { Emotion } from "~/api/types"
import { ANYONE, attached, byCharacter, differing, EMPTY, merged } from "./profiles"

it("merges two versions field by field", () => {
  const mine = { ...EMPTY, name: "merry", description: "mine", voices: ["anna"] }
  const theirs = { ...EMPTY, name: "merry", description: "theirs", exaggeration: 0.7 }
  expect(differing(mine, theirs)).toEqual(["description", "voices", "exaggeration"])
  expect(merged(mine, theirs, new Set(["description"] as const))).toEqual({ ...theirs, description: "mine" })
})

it("groups by character, those of none first", () => {
  const of = (name: string, character: string) => ({ name, character }) as Emotion
  const groups = byCharacter([of("a", "Zoe"), of("b", ""), of("c", "Anna"), of("d", "Zoe")])
  expect(groups.map(([character, some]) => [character, some.length])).toEqual([
    [ANYONE, 1],
    ["Anna", 1],
    ["Zoe", 2],
  ])
})

it("attaches a voice once", () => {
  expect(attached(["a"], "b")).toEqual(["a", "b"])
  expect(attached(["a"], "a")).toEqual(["a"])
})
