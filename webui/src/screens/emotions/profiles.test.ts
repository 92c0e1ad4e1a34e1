import { expect, it } from "vitest"
import type { Emotion } from "~/api/types"
import { ANYONE, attached, byCharacter } from "./profiles"

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
