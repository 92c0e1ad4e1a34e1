// One worker: how it is, what it holds, its last minutes, and whether it takes requests.
import { useState } from "react"
import { setDraining } from "~/api/fleet"
import type { WorkerStats } from "~/api/types"
import { Button } from "~/components/buttons"
import { useFleet } from "~/stores/fleet"
import { showError } from "~/stores/notices"
import { Sparkline } from "./sparkline"
import { bytes, count, isServing, perSecond, ratio, STATES, span } from "./words"

const TONES = { good: "bg-good", warn: "bg-warn", bad: "bg-bad" }
const NOTHING: never[] = []

export function StateBadge({ worker }: { worker: WorkerStats }) {
  const { name, tone } = STATES[worker.state]
  return (
    <div>
      <p className="flex items-center gap-2 font-medium">
        <span className={`size-2.5 shrink-0 rounded-full ${TONES[tone]}`} aria-hidden="true" />
        {name}
        <span className="text-sm font-normal text-soft">for {span(worker.since_s)}</span>
      </p>
      {worker.reason && <p className="text-sm break-words text-soft">{worker.reason}</p>}
    </div>
  )
}

export function DrainButton({ worker }: { worker: WorkerStats }) {
  const stats = useFleet(({ stats }) => stats)
  const [busy, setBusy] = useState(false)
  const [asked, setAsked] = useState(false)
  const draining = worker.state === "draining"
  const isLast = !draining && isServing(worker) && stats?.totals.ready === 1
  const doubted = asked && isLast

  async function change() {
    if (busy) return
    if (isLast && !asked) {
      setAsked(true)
      return
    }
    setAsked(false)
    setBusy(true)
    try {
      await setDraining(worker.name, !draining)
    } catch (error) {
      showError(error)
    } finally {
      setBusy(false)
    }
  }

  const deed = draining ? "Resume" : doubted ? "Drain it all the same" : "Drain"
  return (
    <div className="flex flex-col items-start gap-1">
      <Button
        small
        tone={doubted ? "bad" : "plain"}
        disabled={worker.state === "dead"}
        aria-disabled={busy} // a button that is disabled loses the keyboard's focus
        aria-label={doubted ? `${deed}: ${worker.name}` : `${deed} ${worker.name}`}
        title={draining ? "It takes requests again" : "It finishes what it has and takes nothing new"}
        onClick={() => void change()}
        onBlur={() => setAsked(false)}
      >
        {deed}
      </Button>
      {doubted && (
        <p role="alert" className="text-sm text-bad">
          It is the last one that takes requests: nothing will be spoken.
        </p>
      )}
    </div>
  )
}

export function WorkerCharts({ worker }: { worker: WorkerStats }) {
  const series = useFleet(({ series }) => series)
  const points = (what: string) => series[`${worker.name} ${what}`] ?? NOTHING
  return (
    <div className="grid grid-cols-2 gap-4 min-[104rem]:grid-cols-4">
      <Sparkline name="In flight" points={points("in flight")} say={count} />
      <Sparkline name="Real-time factor" points={points("rtf")} say={ratio} />
      <Sparkline name="Decode steps" points={points("steps")} say={perSecond} />
      <Sparkline name="Memory" points={points("memory")} say={bytes} />
    </div>
  )
}
