// The fleet's figures as they come, and those of the last minutes.
import { create } from "zustand"
import { inWords, isForAdministrators, type Trouble, wantsKey } from "~/api/errors"
import { liveStats } from "~/api/fleet"
import type { FleetStats, WorkerStats } from "~/api/types"
import { anotherKey, useConnection } from "./connection"

/** Milliseconds that are kept: ten minutes, of which a figure a second. */
export const KEPT_MS = 600_000

export interface Point {
  /** Milliseconds since the epoch. */
  at: number
  value: number | null
}

/** What is drawn of the fleet, and of each worker by its name. */
export type Series = Record<string, Point[]>

export interface Fleet {
  stats: FleetStats | null
  /** When the figures came; milliseconds since the epoch. */
  heardAt: number | null
  trouble: Trouble | null
  series: Series
}

export const useFleet = create<Fleet>()(() => ({ stats: null, heardAt: null, trouble: null, series: {} }))

/** Takes in new figures; rates are between these and the ones before. */
export function hear(stats: FleetStats, now = Date.now()): void {
  useFleet.setState(({ stats: before, heardAt, series }) => ({
    stats,
    heardAt: now,
    trouble: null,
    series: grown(series, pointsOf(stats, before, heardAt === null ? null : (now - heardAt) / 1000), now),
  }))
}

function pointsOf(stats: FleetStats, before: FleetStats | null, spanS: number | null): Record<string, number | null> {
  const points: Record<string, number | null> = {
    "requests/s": rate(stats.totals.requests, before?.totals.requests, spanS),
    waiting: waitingIn(stats),
    "in flight": stats.totals.in_flight,
  }
  for (const worker of stats.workers) {
    const { health } = worker
    points[`${worker.name} in flight`] = worker.in_flight
    points[`${worker.name} rtf`] = health?.rtf ?? null
    points[`${worker.name} steps`] = health?.figures?.steps_per_s ?? null
    points[`${worker.name} memory`] = health?.memory_bytes ?? null
  }
  return points
}

/** A counter that has begun anew tells nothing of the time between. */
export function rate(now: number, before: number | undefined, spanS: number | null): number | null {
  if (before === undefined || spanS === null || spanS <= 0 || now < before) return null
  return (now - before) / spanS
}

export function waitingIn(stats: FleetStats): number {
  return Object.values(stats.totals.waiting).reduce((sum, count) => sum + count, 0)
}

function grown(series: Series, points: Record<string, number | null>, now: number): Series {
  return Object.fromEntries(
    Object.entries(points).map(([name, value]) => {
      const kept = (series[name] ?? []).filter(({ at }) => at > now - KEPT_MS)
      return [name, [...kept, { at: now, value }]]
    }),
  )
}

/** Places of a worker that are taken, and how many there are. */
export function slotsOf({ health, jobs, limit }: WorkerStats): { used: number; all: number } {
  const figures = health?.figures
  if (figures) return { used: figures.slots_used, all: figures.slots }
  return { used: health?.running_jobs ?? jobs, all: health?.concurrency ?? limit }
}

const RETRY_MS = 2_000

/** Follows the figures. Returns the function that ends it. */
export function watchFleet(): () => void {
  const ending = new AbortController()
  async function follow() {
    while (!ending.signal.aborted) {
      const { given } = useConnection.getState()
      try {
        for await (const stats of liveStats(ending.signal)) hear(stats)
      } catch (error) {
        if (ending.signal.aborted) return
        useFleet.setState({ trouble: inWords(error) })
        if (wantsKey(error) || isForAdministrators(error)) await anotherKey(given, ending.signal)
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
    }
  }
  void follow()
  return () => ending.abort()
}
