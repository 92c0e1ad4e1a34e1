// Records a voice: reads a text out, sees the level, trims what was recorded, and listens to it.
import { useEffect, useMemo, useRef, useState } from "react"
import {
  LONGEST_S,
  type Recorder,
  type Recording,
  record,
  soundingPart,
  trimmed,
  whyNoMicrophone,
} from "~/audio/recorder"
import { PEAK_SPAN, Sound, wavOf } from "~/audio/sound"
import { Button } from "~/components/buttons"
import { PreviewButton } from "~/components/previewButton"
import { Waveform } from "~/components/waveform"
import { newId } from "~/stores/drafts"

const TO_READ =
  "The harbour was quiet when the first boats came in. Somebody laughed, a door fell shut, and far out on the water a bell rang twice. What a fine morning, she said, and meant it."

interface RecordPanelProps {
  onTaken: (file: Blob) => void
  onCancel: () => void
}

export function RecordPanel({ onTaken, onCancel }: RecordPanelProps) {
  const [recorder, setRecorder] = useState<Recorder | null>(null)
  const [recording, setRecording] = useState<Recording | null>(null)
  const [level, setLevel] = useState(0)
  const [seconds, setSeconds] = useState(0)
  const [trouble, setTrouble] = useState<string | null>(whyNoMicrophone)
  const [opening, setOpening] = useState(false)
  const live = useRef<Recorder | null>(null)
  const gone = useRef(false)

  useEffect(() => {
    gone.current = false
    return () => {
      gone.current = true
      live.current?.stop()
    }
  }, [])

  async function begin() {
    setTrouble(null)
    setRecording(null)
    setSeconds(0)
    setOpening(true)
    try {
      const begun = await record((heard, so_far) => {
        setLevel(heard)
        setSeconds(so_far)
        if (so_far >= LONGEST_S) end()
      })
      live.current = begun
      if (gone.current) begun.stop()
      else setRecorder(begun)
    } catch (error) {
      setTrouble((error as Error).message)
    } finally {
      setOpening(false)
    }
  }

  function end() {
    const ended = live.current
    if (!ended) return
    live.current = null
    setRecording(ended.stop())
    setRecorder(null)
    setLevel(0)
  }

  if (recording) {
    return <Trimmer recording={recording} onAgain={() => void begin()} onTaken={onTaken} />
  }
  return (
    <div className="flex flex-col gap-4">
      <p className="text-sm text-soft">
        Read this aloud, or say anything else, for 5 to 15 seconds: close to the microphone, in a quiet room, as the
        voice shall sound.
      </p>
      <blockquote className="rounded-xl bg-raised p-4 text-lg leading-relaxed">{TO_READ}</blockquote>
      <div>
        <div aria-hidden="true" className="h-3 overflow-hidden rounded-full bg-raised">
          <div
            className={`h-full rounded-full transition-[width] duration-75 ${level > 0.97 ? "bg-bad" : "bg-good"}`}
            style={{ width: `${Math.round(Math.sqrt(level) * 100)}%` }}
          />
        </div>
        <p className="mt-1 text-sm text-soft tabular-nums">
          {recorder ? `${seconds.toFixed(1)} s of at most ${LONGEST_S} s` : "Not recording"}
          {level > 0.97 && <span className="text-bad"> · too loud: move back a little</span>}
        </p>
      </div>
      {trouble && (
        <p role="alert" className="rounded-xl bg-bad-wash p-3 text-sm text-bad">
          {trouble}
        </p>
      )}
      <div className="flex flex-wrap justify-end gap-2">
        <Button tone="quiet" onClick={onCancel}>
          Back
        </Button>
        {recorder ? (
          <Button tone="bad" icon="stop" onClick={end}>
            Stop recording
          </Button>
        ) : (
          <Button
            tone="accent"
            icon="record"
            disabled={opening || whyNoMicrophone() !== null}
            onClick={() => void begin()}
          >
            Record
          </Button>
        )}
      </div>
    </div>
  )
}

interface TrimmerProps {
  recording: Recording
  onAgain: () => void
  onTaken: (file: Blob) => void
}

const SHORTEST_S = 0.5

function Trimmer({ recording, onAgain, onTaken }: TrimmerProps) {
  const sound = useMemo(() => Sound.of(recording.samples), [recording])
  const key = useMemo(newId, [])
  const whole = recording.samples.length / recording.sampleRate
  const initial = useMemo(() => soundingPart(sound.peaks, PEAK_SPAN / recording.sampleRate), [sound, recording])
  const [fromS, setFrom] = useState(initial.fromS)
  const [toS, setTo] = useState(initial.toS)
  const kept = () => {
    const part = trimmed(recording, fromS, toS)
    return wavOf(part.samples, part.sampleRate)
  }
  const share = (seconds: number) => `${(100 * seconds) / Math.max(whole, 1e-6)}%`
  return (
    <div className="flex flex-col gap-4">
      <p className="text-sm text-soft">Keep what is well said: move the ends, and listen.</p>
      <div className="relative overflow-hidden rounded-xl bg-raised">
        <Waveform peaks={sound.peaks} position={toS} duration={whole} label="The recording" height={96} />
        <div className="absolute inset-y-0 left-0 bg-page/80" style={{ width: share(fromS) }} />
        <div className="absolute inset-y-0 right-0 bg-page/80" style={{ width: share(whole - toS) }} />
      </div>
      <TrimRange
        label="Begins at"
        value={fromS}
        whole={whole}
        onChange={(value) => setFrom(Math.max(0, Math.min(value, toS - SHORTEST_S)))}
      />
      <TrimRange
        label="Ends at"
        value={toS}
        whole={whole}
        onChange={(value) => setTo(Math.min(whole, Math.max(value, fromS + SHORTEST_S)))}
      />
      <div className="flex items-center gap-2">
        <PreviewButton
          id={`recording ${key} ${fromS} ${toS}`}
          label="what is kept"
          fetch={() => Promise.resolve(kept())}
        />
        <p className="text-sm tabular-nums">{(toS - fromS).toFixed(1)} s are kept</p>
      </div>
      <div className="flex flex-wrap justify-end gap-2">
        <Button tone="quiet" icon="reset" onClick={onAgain}>
          Record again
        </Button>
        <Button tone="accent" icon="check" onClick={() => onTaken(kept())}>
          Use this recording
        </Button>
      </div>
    </div>
  )
}

interface TrimRangeProps {
  label: string
  value: number
  whole: number
  onChange: (value: number) => void
}

function TrimRange({ label, value, whole, onChange }: TrimRangeProps) {
  return (
    <label className="flex items-center gap-3 text-sm">
      <span className="w-20">{label}</span>
      <input
        type="range"
        className="h-6 flex-1"
        style={{ "--fill": `${(100 * value) / Math.max(whole, 1e-6)}%` } as React.CSSProperties}
        min={0}
        max={whole}
        step={0.05}
        value={value}
        aria-valuetext={`${value.toFixed(2)} seconds`}
        onChange={(event) => onChange(Number(event.target.value))}
      />
      <span className="w-14 text-right tabular-nums">{value.toFixed(2)} s</span>
    </label>
  )
}
