// How the fleet is, in a word, and the key it is asked with.
import { useConnection } from "~/stores/connection"
import { Button } from "./buttons"

export function ServerState() {
  const { status, health, key, hasKeys, wantKey } = useConnection()
  const ready = status === "up" && (health?.ready ?? 0) > 0
  const colour = status === "down" ? "bg-bad" : ready ? "bg-good" : "bg-warn"
  return (
    <div className="flex items-center gap-2 text-sm lg:flex-col lg:items-start">
      <p className="flex items-center gap-2">
        <span className={`size-2.5 shrink-0 rounded-full ${colour}`} aria-hidden="true" />
        {words(status, ready, health)}
      </p>
      {health && status === "up" && (
        <p className="hidden text-soft lg:block">
          {health.model.join(", ") || "no model"} · {health.device.join(", ") || "no device"}
        </p>
      )}
      {(key || hasKeys) && (
        <Button small tone="quiet" icon="key" onClick={() => wantKey("")}>
          <span className="max-lg:sr-only">{key ? "Change the key" : "Enter a key"}</span>
        </Button>
      )}
    </div>
  )
}

function words(status: string, ready: boolean, health: { ready: number; workers: number } | null): string {
  if (status === "down") return "Server away"
  if (status === "unknown" || !health) return "Connecting…"
  return ready ? `${health.ready} of ${health.workers} ready` : "No worker ready"
}
