// A long text's segments: which have arrived, which is heard; a click goes to one.
import { useEffect, useRef } from "react"
import type { Segment } from "~/stores/takes"

interface SegmentStripProps {
  segments: readonly Segment[]
  /** Seconds. */
  position: number
  arriving: boolean
  onSeek: (seconds: number) => void
}

/** The segment that is heard at a position; the last that arrived where it is behind all of them. */
export function segmentAt(segments: readonly Segment[], position: number): number {
  const at = segments.findIndex(({ endS }) => endS === null || position < endS)
  return at < 0 ? segments.length - 1 : at
}

export function SegmentStrip({ segments, position, arriving, onSeek }: SegmentStripProps) {
  const arrived = segments.filter(({ endS }) => endS !== null).length
  const heard = segmentAt(segments, position)
  const list = useRef<HTMLOListElement>(null)
  useEffect(() => {
    // Within the list alone: the page itself must not move under the reader.
    const entry = list.current?.children[heard] as HTMLElement | undefined
    if (list.current && entry) list.current.scrollTop = entry.offsetTop - list.current.clientHeight / 3
  }, [heard])
  return (
    <div>
      <div className="mb-2 flex items-center gap-3">
        <progress
          aria-label="Segments spoken"
          className="h-1.5 flex-1 overflow-hidden rounded-full [&::-moz-progress-bar]:bg-accent [&::-webkit-progress-bar]:bg-raised [&::-webkit-progress-value]:bg-accent"
          max={segments.length}
          value={arrived}
        />
        <p className="text-sm text-soft tabular-nums">
          {arriving
            ? `Segment ${Math.min(arrived + 1, segments.length)} of ${segments.length}`
            : `${arrived} of ${segments.length} segments`}
        </p>
      </div>
      <ol ref={list} className="relative max-h-40 overflow-y-auto rounded-lg" aria-label="Segments">
        {segments.map(({ text, endS }, index) => {
          const startS = index === 0 ? 0 : segments[index - 1]?.endS
          const reachable = startS != null && (endS !== null || index === arrived)
          return (
            // biome-ignore lint/suspicious/noArrayIndexKey: segments are told by their place
            <li key={index}>
              <button
                type="button"
                disabled={!reachable}
                aria-current={index === heard ? "true" : undefined}
                className={`w-full rounded-md px-2 py-1 text-left text-sm hover:not-disabled:bg-raised aria-[current]:bg-accent-wash aria-[current]:text-accent ${
                  endS === null ? "text-soft" : ""
                }`}
                onClick={() => onSeek((startS ?? 0) + 0.001)}
              >
                {text}
              </button>
            </li>
          )
        })}
      </ol>
    </div>
  )
}
