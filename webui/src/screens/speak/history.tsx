// What was spoken before, in this browser: heard again, compared, and its settings used anew.
import { useState } from "react"
import { useTakes } from "~/stores/takes"
import { Comparison } from "./comparison"
import { TakeCard } from "./takeCard"

const SHOWN_AT_FIRST = 8

export function History() {
  const { takes, lasting, a, b } = useTakes()
  const [all, setAll] = useState(false)
  const heard = takes.filter(({ state, durationS }) => state !== "arriving" && durationS > 0)
  if (heard.length === 0) return null
  const shown = all ? heard : heard.slice(0, SHOWN_AT_FIRST)
  return (
    <section aria-labelledby="takes" className="flex flex-col gap-4">
      <div className="flex flex-wrap items-baseline justify-between gap-2">
        <h2 id="takes" className="text-lg font-semibold">
          Takes
        </h2>
        <p className="text-sm text-soft">
          {lasting
            ? "Kept in this browser; the oldest go when there is no more room."
            : "This browser keeps nothing: they are gone when the tab is closed."}
        </p>
      </div>
      {a && b && <Comparison />}
      <ul className="grid grid-cols-1 gap-3 md:grid-cols-2 2xl:grid-cols-3 min-[160rem]:grid-cols-4">
        {shown.map((take) => (
          <li key={take.id} className="min-w-0">
            <TakeCard take={take} />
          </li>
        ))}
      </ul>
      {heard.length > shown.length && (
        <button
          type="button"
          className="self-center rounded-lg px-4 py-2 text-accent hover:bg-raised"
          onClick={() => setAll(true)}
        >
          Show all {heard.length}
        </button>
      )}
    </section>
  )
}
