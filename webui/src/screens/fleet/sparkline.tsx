// A small chart without axes: the last minutes of one figure, told in words too.
import { type PointerEvent, useId, useState } from "react"
import { KEPT_MS, type Point } from "~/stores/fleet"

interface SparklineProps {
  name: string
  points: readonly Point[]
  /** A value in words, with its unit. */
  say: (value: number) => string
}

const WIDTH = 240
const HEIGHT = 44

export function Sparkline({ name, points, say }: SparklineProps) {
  const [shown, setShown] = useState<Point | null>(null)
  const id = useId()
  const known = points.filter((point): point is { at: number; value: number } => point.value !== null)
  const last = known.at(-1)
  const now = points.at(-1)?.at ?? 0
  const span = Math.max(60_000, Math.min(KEPT_MS, now - (points[0]?.at ?? now)))
  const values = known.map(({ value }) => value)
  const most = Math.max(...values, 1e-9)
  const x = (at: number) => WIDTH - ((now - at) / span) * WIDTH
  const y = (value: number) => HEIGHT - 3 - (value / most) * (HEIGHT - 6)

  function point(event: PointerEvent<SVGSVGElement>) {
    const box = event.currentTarget.getBoundingClientRect()
    const at = now - (1 - (event.clientX - box.left) / box.width) * span
    setShown(
      known.reduce<Point | null>(
        (best, one) => (best && Math.abs(best.at - at) < Math.abs(one.at - at) ? best : one),
        null,
      ),
    )
  }

  const told = shown?.value != null ? say(shown.value) : last ? say(last.value) : "not told"
  return (
    <figure className="flex min-w-0 flex-col gap-1">
      <figcaption id={id} className="flex justify-between gap-2 text-sm">
        <span className="text-soft">{name}</span>
        <span className="font-medium tabular-nums">{told}</span>
      </figcaption>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        className="h-11 w-full rounded-md bg-raised/60"
        role="img"
        aria-label={
          last
            ? `${name} over the last ${minutes(span)}: now ${say(last.value)}, at least ${say(Math.min(...values))}, at most ${say(Math.max(...values))}`
            : `${name}: not told`
        }
        onPointerMove={point}
        onPointerLeave={() => setShown(null)}
      >
        {runs(points).map((run) => (
          <polyline
            key={run[0]?.at}
            points={run.map(({ at, value }) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ")}
            fill="none"
            className="stroke-accent"
            strokeWidth="1.5"
            strokeLinejoin="round"
            strokeLinecap="round"
            vectorEffect="non-scaling-stroke"
          />
        ))}
      </svg>
    </figure>
  )
}

function minutes(ms: number): string {
  const count = Math.round(ms / 60_000)
  return count === 1 ? "minute" : `${count} minutes`
}

/** Unbroken stretches: where nothing was told or heard, there is no line. */
export function runs(points: readonly Point[]): { at: number; value: number }[][] {
  const found: { at: number; value: number }[][] = []
  let before: Point | null = null
  for (const point of points) {
    if (point.value !== null) {
      const goesOn = before !== null && before.value !== null && point.at - before.at < 5_000
      if (goesOn) found.at(-1)?.push({ at: point.at, value: point.value })
      else found.push([{ at: point.at, value: point.value }])
    }
    before = point
  }
  return found
}
