import { expect, it } from "vitest"
import { usePlayer } from "./player"
import { usePreviews } from "./previews"

it("ends a sample when a take begins to sound", () => {
  usePreviews.setState({ current: "anna" })
  usePlayer.setState({ playing: true })
  expect(usePreviews.getState().current).toBeNull()
})
