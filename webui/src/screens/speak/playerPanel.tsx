// The take that is made or heard: its outline while it arrives, what was measured, and its file.
import { Button, IconButton } from "~/components/buttons"
import { TroubleNote } from "~/components/troubleNote"
import { Waveform } from "~/components/waveform"
import { usePlayer } from "~/stores/player"
import { restOf, useSpeaking } from "~/stores/speaking"
import { type Take, useTakes } from "~/stores/takes"
import { DownloadButton } from "./downloadButton"
import { Figures } from "./figures"
import { SegmentStrip } from "./segmentStrip"

export function PlayerPanel() {
  const speaking = useSpeaking()
  const player = usePlayer()
  const shownId = speaking.status === "idle" ? (player.takeId ?? speaking.takeId) : speaking.takeId
  const take = useTakes(({ takes }) => takes.find(({ id }) => id === shownId))
  if (!take) return <Empty />
  const isLoaded = player.takeId === take.id
  const sound = isLoaded ? player.sound : speaking.takeId === take.id ? speaking.sound : null
  const position = isLoaded ? player.position : 0
  const duration = sound?.seconds ?? take.durationS
  const arriving = take.state === "arriving"
  return (
    <section aria-label="Sound" className="flex flex-col gap-4 rounded-2xl border border-line bg-surface p-4">
      {duration > 0 || arriving ? (
        <div className="flex items-center gap-4">
          <IconButton
            icon={isLoaded && player.playing ? "pause" : "play"}
            label={isLoaded && player.playing ? "Pause" : "Play"}
            tone="accent"
            filled
            className="size-12! rounded-full!"
            disabled={!sound || duration === 0}
            onClick={() => (isLoaded ? player.toggle() : sound && player.start(take.id, sound))}
          />
          <div className="min-w-0 flex-1">
            <Waveform
              peaks={sound?.peaks ?? []}
              version={speaking.revision}
              position={position}
              duration={duration}
              expected={arriving ? Math.max(10, duration * 1.15) : duration}
              label="Position in the sound"
              {...(isLoaded && { onSeek: player.seek })}
            />
          </div>
          <p className="w-12 text-right text-xs text-soft tabular-nums sm:w-24 sm:text-sm" data-testid="time">
            {clock(position)} / {clock(duration)}
          </p>
        </div>
      ) : null}
      <Status take={take} waiting={isLoaded && player.waiting} />
      {take.trouble && <Failure take={take} />}
      {take.segments.length > 1 && (
        <SegmentStrip
          segments={take.segments}
          position={position}
          arriving={arriving}
          onSeek={(seconds) => (isLoaded ? player.seek(seconds) : sound && player.start(take.id, sound, seconds))}
        />
      )}
      <div className="flex flex-wrap items-center justify-between gap-3">
        <Figures take={take} underruns={isLoaded ? player.underruns : 0} />
        {!arriving && duration > 0 && <DownloadButton take={take} />}
      </div>
    </section>
  )
}

function Empty() {
  return (
    <section aria-label="Sound" className="rounded-2xl border border-dashed border-line p-8 text-center text-soft">
      <p>The sound appears here as it is made. Press Generate, or Ctrl+Enter.</p>
    </section>
  )
}

/** What is happening, for the ear of a screen reader and the eye alike. */
function Status({ take, waiting }: { take: Take; waiting: boolean }) {
  const said =
    take.state === "arriving"
      ? take.firstSoundS === null
        ? "Waiting for the first sound…"
        : waiting
          ? "Speaking; the sound has run dry and goes on as soon as there is more…"
          : "Speaking…"
      : take.state === "stopped"
        ? "Stopped. What had arrived is kept."
        : ""
  return (
    <p role="status" className={`text-sm text-soft ${said ? "" : "sr-only"}`}>
      {said}
    </p>
  )
}

function Failure({ take }: { take: Take }) {
  const generate = useSpeaking((speaking) => speaking.generate)
  const rest = take.durationS > 0 ? restOf(take) : null
  return (
    <TroubleNote trouble={take.trouble ?? { title: "", detail: "", requestId: null }}>
      <Button small icon="reset" onClick={() => void generate(take.text, take.settings)}>
        Try again
      </Button>
      {rest && rest !== take.text && (
        <Button small icon="speak" onClick={() => void generate(rest, take.settings)}>
          Speak the rest
        </Button>
      )}
    </TroubleNote>
  )
}

export function clock(seconds: number): string {
  const tenths = Math.floor(seconds * 10) / 10
  const minutes = Math.floor(tenths / 60)
  return `${minutes}:${(tenths - minutes * 60).toFixed(1).padStart(4, "0")}`
}
