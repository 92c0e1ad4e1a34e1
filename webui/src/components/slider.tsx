// A value on a scale: dragged, stepped with the keyboard, or typed; set here, or inherited from elsewhere.
import { type CSSProperties, useEffect, useId, useState } from "react"
import { within } from "~/stores/parameters"
import { IconButton } from "./buttons"

interface SliderProps {
  label: string
  value: number
  /** What the slider spans. */
  from: number
  to: number
  step: number
  /** What may be typed, where that is more. */
  least?: number
  most?: number
  /** What the value means, for the eye and for screen readers. */
  said: string
  ends?: [string, string]
  /** Whether the value was set here; an inherited one is shown quietly. */
  isSet: boolean
  /** With `log`, equal ways on the scale are equal ratios. */
  scale?: "linear" | "log"
  /** Whether only whole numbers may be typed. */
  whole?: boolean
  disabled?: boolean
  /** Null gives the value back to where it is inherited from. */
  onChange: (value: number | null) => void
}

export function Slider({
  label,
  value,
  from,
  to,
  step,
  least = from,
  most = to,
  said,
  ends,
  isSet,
  scale = "linear",
  whole = false,
  disabled = false,
  onChange,
}: SliderProps) {
  const id = useId()
  const place = scale === "log" ? Math.log : (x: number) => x
  const back = scale === "log" ? Math.exp : (x: number) => x
  const shown = Math.max(from, Math.min(to, value))
  const rounded = (x: number) => Number((Math.round(x / step) * step).toFixed(4))

  /** To a place on the scale; a step of the keyboard that is smaller than the value's own still moves it. */
  function moveTo(next: number) {
    const wanted = rounded(back(next))
    const moved = wanted === value ? rounded(value + Math.sign(next - place(shown)) * step) : wanted
    onChange(Math.max(from, Math.min(to, moved)))
  }

  return (
    <div className="flex flex-col">
      <div className="flex items-center gap-1">
        <label htmlFor={id} className={`flex-1 text-sm font-medium ${disabled ? "text-soft" : ""}`}>
          {label}
        </label>
        <IconButton
          icon="reset"
          label={`${label}: back to its default`}
          className={isSet && !disabled ? "" : "invisible"}
          onClick={() => onChange(null)}
        />
        <NumberField
          label={`${label}, exactly`}
          value={value}
          quiet={!isSet}
          disabled={disabled}
          onCommit={(typed) => {
            const next = within({ least, most, whole }, typed)
            if (next !== null) onChange(next)
          }}
        />
      </div>
      <input
        id={id}
        type="range"
        className={`h-6 w-full ${disabled ? "opacity-50" : ""}`}
        style={
          {
            "--fill": `${(100 * (place(shown) - place(from))) / (place(to) - place(from))}%`,
            ...(!isSet && { "--thumb": "var(--line-strong)" }),
          } as CSSProperties
        }
        min={place(from)}
        max={place(to)}
        step={scale === "log" ? (place(to) - place(from)) / 200 : step}
        value={place(shown)}
        aria-valuetext={`${value}, ${said}`}
        aria-describedby={`${id}-said`}
        disabled={disabled}
        onChange={(event) => moveTo(Number(event.target.value))}
      />
      {ends && !disabled && (
        <p className="flex justify-between text-xs text-soft" aria-hidden="true">
          <span>{ends[0]}</span>
          <span>{ends[1]}</span>
        </p>
      )}
      <p id={`${id}-said`} className="text-sm text-soft">
        {said}
      </p>
    </div>
  )
}

interface NumberFieldProps {
  label: string
  value: number
  quiet: boolean
  disabled: boolean
  onCommit: (typed: string) => void
}

/** Takes what was typed when it is left or Enter is pressed: half a number is no value. */
function NumberField({ label, value, quiet, disabled, onCommit }: NumberFieldProps) {
  const [typed, setTyped] = useState(String(value))
  useEffect(() => setTyped(String(value)), [value])
  const commit = () => {
    if (typed !== String(value)) onCommit(typed)
    setTyped(String(value))
  }
  return (
    <input
      aria-label={label}
      inputMode="decimal"
      className={`h-9 w-16 rounded-md border border-line-strong/60 bg-surface px-2 text-right text-sm tabular-nums ${quiet ? "text-soft" : ""}`}
      value={typed}
      disabled={disabled}
      onChange={(event) => setTyped(event.target.value)}
      onBlur={commit}
      onKeyDown={(event) => {
        if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return
        event.preventDefault() // it is the value that is entered, not the form around it
        commit()
      }}
    />
  )
}
