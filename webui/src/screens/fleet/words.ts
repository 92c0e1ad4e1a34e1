// Figures of the fleet in words.
import type { WorkerStats } from "~/api/types"

export const STATES: Record<WorkerStats["state"], { name: string; tone: "good" | "warn" | "bad" }> = {
  starting: { name: "Starting", tone: "warn" },
  ready: { name: "Ready", tone: "good" },
  degraded: { name: "Degraded", tone: "warn" },
  draining: { name: "Draining", tone: "warn" },
  ejected: { name: "Ejected", tone: "bad" },
  half_open: { name: "On trial", tone: "warn" },
  dead: { name: "Gone", tone: "bad" },
}

/** Whether it takes requests, as the balancer counts it. */
export function isServing({ state }: Pick<WorkerStats, "state">): boolean {
  return state === "ready" || state === "degraded" || state === "half_open"
}

export function bytes(count: number): string {
  if (count >= 2 ** 30) return `${(count / 2 ** 30).toFixed(1)} GiB`
  return `${(count / 2 ** 20).toFixed(0)} MiB`
}

export function span(seconds: number): string {
  if (seconds < 60) return `${Math.floor(seconds)} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`
}

export function shortSpan(seconds: number): string {
  if (seconds >= 0.9995) return `${seconds.toFixed(2)} s`
  return `${(seconds * 1000).toFixed(seconds < 0.00995 ? 1 : 0)} ms`
}

export const count = (value: number) => value.toLocaleString()
export const ratio = (value: number) => (value >= 10 ? value.toFixed(1) : value.toFixed(3))
export const perSecond = (value: number) => `${value.toFixed(1)}/s`

/** Why a figure is missing; `ofTokens` says whether it is one that only engines which decode tokens have. */
export function whyUntold({ health }: Pick<WorkerStats, "health">, ofTokens: boolean): string {
  if (!health) return "The worker has not answered yet."
  if (ofTokens && !health.figures) return "This engine decodes no tokens."
  return "Nothing has been spoken yet."
}
