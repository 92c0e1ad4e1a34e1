// One take: what it says, how it was spoken, and what can be done with it.
import { Refused } from "~/api/errors"
import { IconButton } from "~/components/buttons"
import { useDrafts } from "~/stores/drafts"
import { useLibrary } from "~/stores/library"
import { offerUndo, showError, useNotices } from "~/stores/notices"
import { usePlayer } from "~/stores/player"
import { usePreviews } from "~/stores/previews"
import { useSpeaking } from "~/stores/speaking"
import { realTimeFactor, type Take, useTakes } from "~/stores/takes"
import { DownloadButton } from "./downloadButton"
import { clock } from "./playerPanel"

export function TakeCard({ take }: { take: Take }) {
  const { takeId, playing } = usePlayer()
  const { a, b, compare, remove } = useTakes()
  const voices = useLibrary((library) => library.voices)
  const emotions = useLibrary((library) => library.emotions)
  const isPlaying = takeId === take.id && playing
  const used = take.spokenWith
  const rtf = realTimeFactor(take)
  const said = take.text.length > 140 ? `${take.text.slice(0, 140)}…` : take.text
  const how = [
    voices.find(({ id }) => id === used?.voice)?.name ?? used?.voice,
    used?.emotion && (emotions.find(({ id }) => id === used.emotion)?.name ?? used.emotion),
    take.settings.speed !== 1 && `${take.settings.speed.toFixed(2)} ×`,
    ...Object.entries(take.settings.parameters).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`),
    used && `seed ${used.seed}`,
  ].filter(Boolean)

  async function removeTake() {
    usePlayer.getState().unload(take.id)
    const putBack = await remove(take.id)
    offerUndo("The take is deleted", putBack)
  }

  function applySettings() {
    const seed = Number(used?.seed)
    const locked = used !== null && Number.isSafeInteger(seed)
    useDrafts.getState().change({ ...take.settings, ...(locked && { seed, seedLocked: true }) })
    useNotices.getState().show({ tone: "info", title: "Its settings are used, with its seed locked" }, 4_000)
  }

  return (
    <article
      aria-label={`Take: ${said}`}
      className={`flex h-full flex-col gap-2 rounded-xl border bg-surface p-3 ${isPlaying ? "border-accent" : "border-line"}`}
    >
      <div className="flex gap-3">
        <IconButton
          icon={isPlaying ? "pause" : "play"}
          label={isPlaying ? "Pause" : "Play"}
          tone="plain"
          filled
          className="rounded-full!"
          onClick={() => void play(take.id)}
        />
        <p className="line-clamp-2 min-w-0 flex-1 break-words">{said}</p>
      </div>
      <p className="text-sm break-words text-soft">
        {new Date(take.madeAt).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" })} ·{" "}
        {clock(take.durationS)}
        {take.firstSoundS !== null && ` · first sound ${take.firstSoundS.toFixed(2)} s`}
        {rtf !== null && ` · RTF ${rtf.toFixed(3)}`}
        {take.state !== "whole" && ` · ${take.state}`}
      </p>
      <p className="text-sm break-words">{how.join(" · ")}</p>
      <div className="mt-auto flex flex-wrap items-center gap-1">
        <IconButton icon="reset" label="Use these settings" onClick={applySettings} />
        <IconButton icon="edit" label="Use its text" onClick={() => applyText(take)} />
        {(["a", "b"] as const).map((slot) => {
          const chosen = (slot === "a" ? a : b) === take.id
          return (
            <button
              key={slot}
              type="button"
              aria-pressed={chosen}
              aria-label={`Compare as ${slot.toUpperCase()}`}
              title={`Compare as ${slot.toUpperCase()}`}
              className="size-9 rounded-lg font-medium hover:bg-raised aria-pressed:bg-accent aria-pressed:text-on-accent"
              onClick={() => compare(slot, chosen ? null : take.id)}
            >
              {slot.toUpperCase()}
            </button>
          )
        })}
        <IconButton icon="trash" label="Delete" onClick={() => void removeTake()} />
        <div className="ml-auto">
          <DownloadButton take={take} small />
        </div>
      </div>
    </article>
  )
}

/** As a draft of its own: what is being written stays. */
function applyText(take: Take) {
  useDrafts.getState().create(undefined, { text: take.text, settings: take.settings })
  useNotices.getState().show({ tone: "info", title: "Its text and settings are a new draft" }, 4_000)
}

/** Plays a take from its beginning, or pauses it; `fromS` in seconds. */
export async function play(id: string, fromS?: number): Promise<void> {
  usePreviews.getState().stop()
  const player = usePlayer.getState()
  if (player.takeId === id && fromS === undefined) {
    player.toggle()
    return
  }
  const sound = await useTakes.getState().soundOf(id)
  if (!sound) {
    showError(new Refused("This take's sound is no longer kept in this browser."))
    return
  }
  useSpeaking.getState().stop()
  usePlayer.getState().start(id, sound, fromS)
}
