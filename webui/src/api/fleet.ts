// The fleet's own figures, and draining and resuming its workers.
import { ApiError } from "./errors"
import { api, bodyOf } from "./http"
import { eventsOf } from "./sse"
import type { FleetStats } from "./types"

/** Far longer than the second between two figures. */
const SILENCE_MS = 10_000

/** The figures once a second, until the connection ends. A balancer of an earlier version is asked again and again. */
export async function* liveStats(signal: AbortSignal): AsyncGenerator<FleetStats> {
  let body: ReadableStream<Uint8Array>
  try {
    const { data } = await api.GET("/stats/events", { parseAs: "stream", signal })
    body = data as unknown as ReadableStream<Uint8Array>
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) throw error
    while (!signal.aborted) {
      yield await bodyOf(api.GET("/stats", { signal }))
      await new Promise((resolve) => setTimeout(resolve, 1000))
    }
    return
  }
  for await (const { event, data } of eventsOf(body, SILENCE_MS)) if (event === "stats") yield JSON.parse(data)
}

export async function setDraining(worker: string, draining: boolean): Promise<void> {
  const params = { path: { worker } }
  if (draining) await api.POST("/workers/{worker}/drain", { params })
  else await api.POST("/workers/{worker}/resume", { params })
}
