import { expect, it } from "vitest"
import { current, useDrafts } from "./drafts"
import { rememberSeed } from "./speaking"

it("keeps the seed that was drawn with its own draft, not with one that was opened meanwhile", () => {
  const { id } = current(useDrafts.getState())
  rememberSeed(id, "7")
  expect(current(useDrafts.getState()).settings.seed).toBe(7)
  useDrafts.getState().create("Opened meanwhile")
  rememberSeed(id, "8")
  expect(current(useDrafts.getState()).settings.seed).toBeNull()
})
