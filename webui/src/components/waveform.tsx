// The outline of a sound, drawn while it arrives; a click or the arrow keys move through it.
import { useEffect, useRef, useState } from "react"
import { outline } from "~/audio/sound"

interface WaveformProps {
  peaks: readonly number[]
  /** Bumped when `peaks` has grown. */
  version?: number
  /** Seconds. */
  position: number
  duration: number
  /** How much sound is expected in all, where that is known to be more: the outline keeps its scale. */
  expected?: number
  label: string
  height?: number
  onSeek?: (seconds: number) => void
}

const BAR = 3
const GAP = 1.5
const KEY_STEP_S = 2

export function Waveform({ peaks, version, position, duration, expected, label, height = 72, onSeek }: WaveformProps) {
  const canvas = useRef<HTMLCanvasElement>(null)
  const [width, setWidth] = useState(0)
  const theme = useThemeName()
  const span = Math.max(duration, expected ?? 0, 1e-6)

  useEffect(() => {
    const element = canvas.current
    if (!element) return
    const observer = new ResizeObserver(() => setWidth(element.clientWidth))
    observer.observe(element)
    return () => observer.disconnect()
  }, [])

  // biome-ignore lint/correctness/useExhaustiveDependencies: peaks grow in place, the theme is read from the document
  useEffect(() => {
    if (canvas.current && width) draw(canvas.current, width, height, peaks, position / span, duration / span)
  }, [peaks, version, position, span, duration, width, height, theme])

  const seek = (seconds: number) => onSeek?.(Math.max(0, Math.min(seconds, duration)))
  const interactive = onSeek
    ? {
        role: "slider",
        tabIndex: 0,
        "aria-label": label,
        "aria-valuemin": 0,
        "aria-valuemax": Math.round(duration * 10) / 10,
        "aria-valuenow": Math.round(position * 10) / 10,
        "aria-valuetext": `${position.toFixed(1)} of ${duration.toFixed(1)} seconds`,
        onKeyDown: (event: React.KeyboardEvent) => {
          const moves: Record<string, number> = {
            ArrowRight: position + KEY_STEP_S,
            ArrowUp: position + KEY_STEP_S,
            ArrowLeft: position - KEY_STEP_S,
            ArrowDown: position - KEY_STEP_S,
            Home: 0,
            End: duration,
          }
          const to = moves[event.key]
          if (to === undefined) return
          event.preventDefault()
          seek(to)
        },
        onPointerDown: (event: React.PointerEvent) => {
          const box = event.currentTarget.getBoundingClientRect()
          seek(((event.clientX - box.left) / box.width) * span)
        },
        className: "cursor-pointer rounded-md",
      }
    : { role: "img", "aria-label": label }

  return (
    <div {...interactive}>
      <canvas ref={canvas} className="block w-full" style={{ height }} />
    </div>
  )
}

function draw(
  canvas: HTMLCanvasElement,
  width: number,
  height: number,
  peaks: readonly number[],
  heard: number,
  arrived: number,
) {
  const scale = globalThis.devicePixelRatio || 1
  canvas.width = Math.round(width * scale)
  canvas.height = Math.round(height * scale)
  const pen = canvas.getContext("2d")
  if (!pen) return
  const colours = getComputedStyle(document.documentElement)
  const accent = colours.getPropertyValue("--accent")
  const strong = colours.getPropertyValue("--line-strong")
  const faint = colours.getPropertyValue("--line")
  pen.scale(scale, scale)
  pen.clearRect(0, 0, width, height)
  const bars = Math.max(1, Math.floor(width / (BAR + GAP)))
  const drawn = Math.round(bars * Math.min(1, arrived))
  const values = outline(peaks, Math.max(1, drawn))
  for (let i = 0; i < bars; i++) {
    const there = i < drawn && peaks.length > 0
    const tall = there ? Math.max(2, Math.sqrt(values[i] ?? 0) * (height - 4)) : 2
    pen.fillStyle = there ? ((i + 0.5) / bars <= heard ? accent : strong) : faint
    pen.beginPath()
    pen.roundRect(i * (BAR + GAP), (height - tall) / 2, BAR, tall, BAR / 2)
    pen.fill()
  }
}

/** Changes when the colours do. */
function useThemeName(): string | undefined {
  const [name, setName] = useState(document.documentElement.dataset.theme)
  useEffect(() => {
    const observer = new MutationObserver(() => setName(document.documentElement.dataset.theme))
    observer.observe(document.documentElement, { attributeFilter: ["data-theme"] })
    return () => observer.disconnect()
  }, [])
  return name
}
