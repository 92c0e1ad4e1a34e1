import { expect, it } from "vitest"
import type { WorkerStats } from "~/api/types"
import { shortSpan, whyUntold } from "./words"

it("says short times in plain figures, whatever their size", () => {
  expect([0, 0.0042, 0.0123, 0.123, 0.995, 0.99949, 0.9996, 1.234].map(shortSpan)).toEqual([
    "0.0 ms",
    "4.2 ms",
    "12 ms",
    "123 ms",
    "995 ms",
    "999 ms",
    "1.00 s",
    "1.23 s",
  ])
})

it("says of each figure why it is missing: only of one of tokens that none are decoded", () => {
  const worker = { health: { figures: null } } as Pick<WorkerStats, "health">
  expect(whyUntold(worker, true)).toBe("This engine decodes no tokens.")
  expect(whyUntold(worker, false)).toBe("Nothing has been spoken yet.")
  expect(whyUntold({ health: null }, false)).toBe("The worker has not answered yet.")
})
