import { expect, it } from "vitest"
import { differing, merged } from "./versions"

it("merges two versions field by field", () => {
  const mine = { name: "merry", description: "mine", voices: ["anna"], exaggeration: null as number | null }
  const theirs = { name: "merry", description: "theirs", voices: [] as string[], exaggeration: 0.7 as number | null }
  expect(differing(mine, theirs)).toEqual(["description", "voices", "exaggeration"])
  expect(merged(mine, theirs, new Set(["description"] as const))).toEqual({ ...theirs, description: "mine" })
})
