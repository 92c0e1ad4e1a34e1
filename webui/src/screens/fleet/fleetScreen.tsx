// Fleet: every worker as it is now and was in the last minutes; draining and resuming.
import { useEffect, useState } from "react"
import type { FleetStats } from "~/api/types"
import { TroubleNote } from "~/components/troubleNote"
import { useConnection } from "~/stores/connection"
import { useFleet, waitingIn, watchFleet } from "~/stores/fleet"
import { Sparkline } from "./sparkline"
import { count, perSecond, span } from "./words"
import { WorkerTable } from "./workerTable"

const NOTHING: never[] = []
const STALE_S = 4

export default function FleetScreen() {
  useEffect(watchFleet, [])
  const { stats, heardAt, trouble, series } = useFleet()
  const key = useConnection(({ key }) => key)
  const age = useAge(heardAt)
  const isOld = age !== null && age > STALE_S
  return (
    <div className="flex flex-col gap-6">
      <div className="flex flex-wrap items-baseline justify-between gap-2">
        <h1 className="text-2xl font-semibold">Fleet</h1>
        <p className="text-sm text-soft">
          <span role="status">{isOld ? "These figures are old" : stats ? "Live" : ""}</span>
          {isOld && `: ${Math.round(age)} s` /* outside of what is read out: it would be, each second */}
        </p>
      </div>
      {trouble && (
        <TroubleNote trouble={trouble}>
          {trouble.title === "Only an administrator may do this" && (
            <p className="text-sm">
              {key
                ? "Figures and draining take a key whose line ends in admin."
                : "Without keys, figures and draining are for the server’s own machine: open the page there, or have keys set up."}
            </p>
          )}
        </TroubleNote>
      )}
      {stats ? (
        <div className={`flex flex-col gap-6 ${isOld ? "opacity-60" : ""}`}>
          <Engines stats={stats} />
          <section
            aria-label="All workers together"
            className="grid gap-4 rounded-2xl border border-line bg-surface p-4 sm:grid-cols-2 sm:p-5 xl:grid-cols-[auto_1fr_1fr_1fr] xl:gap-8"
          >
            <Totals stats={stats} />
            <Sparkline name="Requests" points={series["requests/s"] ?? NOTHING} say={perSecond} />
            <Sparkline name="In flight" points={series["in flight"] ?? NOTHING} say={count} />
            <Sparkline name="Waiting for a place" points={series.waiting ?? NOTHING} say={count} />
          </section>
          <WorkerTable workers={stats.workers} />
          {stats.missing.length > 0 && (
            <p className="text-sm text-soft">
              Not in the totals: {stats.missing.map(({ worker, reason }) => `${worker} (${reason})`).join(", ")}.
            </p>
          )}
        </div>
      ) : (
        !trouble && <p className="text-soft">Asking the fleet…</p>
      )}
    </div>
  )
}

/** Which engine is running, and plainly where it is the demo voice. */
function Engines({ stats }: { stats: FleetStats }) {
  const known = stats.workers.flatMap(({ health }) => health ?? [])
  const demo = known.filter(({ demo_voice }) => demo_voice).length
  const engines = [...new Set(known.map(({ engine, model }) => `${engine} (${model})`))].join(", ")
  if (!known.length) return <p className="text-soft">No worker has told its engine yet.</p>
  if (!demo) return <p>It speaks with {engines}.</p>
  return (
    <p className="rounded-xl bg-warn-wash p-4 text-warn">
      {demo === known.length
        ? `It speaks with the embedded demo voice, ${engines}: that is not Chatterbox. Start it with a checkpoint to hear the model.`
        : `${demo} of ${known.length} workers speak with the embedded demo voice, which is not Chatterbox.`}
    </p>
  )
}

function Totals({ stats }: { stats: FleetStats }) {
  const { totals } = stats
  const entries: [string, string][] = [
    ["Ready", `${totals.ready} of ${totals.workers}`],
    ["Requests", count(totals.requests)],
    ["Failed", count(totals.failures)],
    ["Tried again", count(totals.retries)],
    ["Waiting", count(waitingIn(stats))],
    ["Up for", span(stats.uptime_s)],
  ]
  return (
    <dl className="grid grid-cols-3 gap-x-6 gap-y-1">
      {entries.map(([name, value]) => (
        <div key={name}>
          <dt className="text-sm text-soft">{name}</dt>
          <dd className="font-medium tabular-nums">{value}</dd>
        </div>
      ))}
    </dl>
  )
}

/** Seconds since something was heard, told anew each second. */
function useAge(heardAt: number | null): number | null {
  const [now, setNow] = useState(Date.now)
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000)
    return () => clearInterval(timer)
  }, [])
  return heardAt === null ? null : Math.max(0, (now - heardAt) / 1000)
}
