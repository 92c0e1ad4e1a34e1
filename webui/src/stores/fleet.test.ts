import { expect, it } from "vitest"
import type { FleetStats } from "~/api/types"
import { runs } from "~/screens/fleet/sparkline"
import { hear, KEPT_MS, rate, useFleet } from "./fleet"

function stats(requests: number): FleetStats {
  return {
    totals: { requests, in_flight: 1, waiting: { interactive: 2, batch: 1 } },
    workers: [],
  } as unknown as FleetStats
}

it("makes rates of counters, and none where they have begun anew", () => {
  expect(rate(15, 5, 2)).toBe(5)
  expect(rate(1, 5, 2)).toBeNull()
  expect(rate(1, undefined, null)).toBeNull()
})

it("keeps the last ten minutes", () => {
  for (let second = 0; second <= 700; second++) hear(stats(second * 3), second * 1_000)
  const { series } = useFleet.getState()
  expect(series["requests/s"]?.at(-1)?.value).toBeCloseTo(3)
  expect(series.waiting?.at(-1)?.value).toBe(3)
  expect(series["requests/s"]?.length).toBe(KEPT_MS / 1_000)
})

it("draws no line over what was not told, nor over a silence", () => {
  const points = [
    { at: 0, value: 1 },
    { at: 1_000, value: 2 },
    { at: 2_000, value: null },
    { at: 3_000, value: 3 },
    { at: 60_000, value: 4 },
  ]
  expect(runs(points).map((run) => run.length)).toEqual([2, 1, 1])
})
