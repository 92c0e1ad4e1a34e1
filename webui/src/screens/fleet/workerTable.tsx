// The workers: a table where there is room for one, a card for each where there is not.
import type { ReactNode } from "react"
import type { WorkerStats } from "~/api/types"
import { slotsOf } from "~/stores/fleet"
import { bytes, count, ratio, shortSpan, span, whyUntold } from "./words"
import { DrainButton, StateBadge, WorkerCharts } from "./workerCard"

interface Column {
  name: string
  meaning: string
  of: (worker: WorkerStats) => ReactNode
}

function untold(worker: WorkerStats, ofTokens = false) {
  const why = whyUntold(worker, ofTokens)
  return (
    <span className="text-soft" title={why}>
      –<span className="sr-only">{why}</span>
    </span>
  )
}

const COLUMNS: Column[] = [
  {
    name: "Engine",
    meaning: "What speaks, and the model it speaks with",
    of: ({ health }) => (
      <>
        {health?.engine ?? "–"}
        {health?.demo_voice && (
          <span className="ml-2 rounded bg-warn-wash px-1.5 text-xs whitespace-nowrap text-warn">demo voice</span>
        )}
        <span className="block text-sm text-soft">{health?.model}</span>
      </>
    ),
  },
  { name: "Device", meaning: "Where it computes", of: ({ health }) => health?.device ?? "–" },
  {
    name: "Memory",
    meaning: "Of the process, and on the GPU",
    of: ({ health }) => (
      <>
        {health ? bytes(health.memory_bytes) : "–"}
        {health?.figures?.device_bytes != null && (
          <span className="block text-sm text-soft">{bytes(health.figures.device_bytes)} on the GPU</span>
        )}
      </>
    ),
  },
  {
    name: "Slots",
    meaning: "Places taken, of all there are",
    of: (worker) => `${count(slotsOf(worker).used)} of ${count(slotsOf(worker).all)}`,
  },
  { name: "Queue", meaning: "Requests that wait inside the worker", of: ({ health }) => health?.queued_jobs ?? "–" },
  {
    name: "it/s",
    meaning: "Decode steps a second",
    of: (worker) => worker.health?.figures?.steps_per_s?.toFixed(1) ?? untold(worker, true),
  },
  {
    name: "RTF",
    meaning: "Real-time factor: computing time over the length of the sound",
    of: (worker) => (worker.health?.rtf == null ? untold(worker) : ratio(worker.health.rtf)),
  },
  {
    name: "TTFA",
    meaning: "Time to the first sound",
    of: (worker) => (worker.health?.ttfa_s == null ? untold(worker) : shortSpan(worker.health.ttfa_s)),
  },
  {
    name: "Requests",
    meaning: "All it was sent, and those that failed",
    of: ({ requests, failures }) => (
      <>
        {count(requests)}
        {failures > 0 && <span className="block text-sm text-bad">{count(failures)} failed</span>}
      </>
    ),
  },
  {
    name: "Age",
    meaning: "How old its figures are",
    of: ({ age_s }) => (age_s === null ? "–" : span(age_s)),
  },
]

export function WorkerTable({ workers }: { workers: readonly WorkerStats[] }) {
  return (
    <>
      <div className="relative hidden overflow-x-auto rounded-2xl border border-line bg-surface min-[104rem]:block">
        <table className="w-full text-left">
          <caption className="sr-only">The workers and their figures</caption>
          <thead className="text-sm text-soft">
            <tr>
              <th scope="col" className="p-3 pl-5 font-normal">
                Worker
              </th>
              <th scope="col" className="p-3 font-normal">
                State
              </th>
              {COLUMNS.map(({ name, meaning }) => (
                <th key={name} scope="col" className="p-3 font-normal" title={meaning}>
                  {name}
                </th>
              ))}
              <th scope="col" className="p-3 pr-5 font-normal">
                <span className="sr-only">Draining</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {workers.map((worker) => (
              <WorkerRows key={worker.name} worker={worker} />
            ))}
          </tbody>
        </table>
      </div>
      <ul className="grid gap-4 xl:grid-cols-2 min-[104rem]:hidden">
        {workers.map((worker) => (
          <li key={worker.name} className="flex flex-col gap-4 rounded-2xl border border-line bg-surface p-4">
            <div className="flex flex-wrap items-start justify-between gap-3">
              <div>
                <h2 className="font-semibold">{worker.name}</h2>
                <p className="text-sm break-all text-soft">{worker.url}</p>
              </div>
              <DrainButton worker={worker} />
            </div>
            <StateBadge worker={worker} />
            <dl className="grid grid-cols-2 gap-x-4 gap-y-2 sm:grid-cols-3">
              {COLUMNS.map(({ name, meaning, of }) => (
                <div key={name} title={meaning}>
                  <dt className="text-sm text-soft">{name}</dt>
                  <dd className="tabular-nums">{of(worker)}</dd>
                </div>
              ))}
            </dl>
            <WorkerCharts worker={worker} />
          </li>
        ))}
      </ul>
    </>
  )
}

function WorkerRows({ worker }: { worker: WorkerStats }) {
  return (
    <>
      <tr className="border-t border-line align-top">
        <th scope="row" className="p-3 pl-5 font-medium">
          {worker.name}
          <span className="block text-sm font-normal text-soft">{worker.url}</span>
        </th>
        <td className="max-w-64 p-3">
          <StateBadge worker={worker} />
        </td>
        {COLUMNS.map(({ name, of }) => (
          <td key={name} className="p-3 tabular-nums">
            {of(worker)}
          </td>
        ))}
        <td className="p-3 pr-5">
          <DrainButton worker={worker} />
        </td>
      </tr>
      <tr>
        <td colSpan={COLUMNS.length + 3} className="px-5 pb-4">
          <WorkerCharts worker={worker} />
        </td>
      </tr>
    </>
  )
}
