// One profile: how it speaks, whose voices it has, and a try in place. Voices and recordings can be dropped on it.
import { type DragEvent, useState } from "react"
import { addVoiceTo, deleteEmotion, testEmotion } from "~/api/library"
import type { Emotion, Voice } from "~/api/types"
import { Button, IconButton } from "~/components/buttons"
import { PreviewButton } from "~/components/previewButton"
import { useDrafts } from "~/stores/drafts"
import { useLibrary } from "~/stores/library"
import { showError, undoable, useNotices } from "~/stores/notices"
import { goTo } from "~/stores/route"
import { attached, changeVoices, parametersIn } from "./profiles"

/** What a dragged voice is told as; other pages' drags are none. */
export const VOICE = "application/x-fleet-voice"

interface EmotionCardProps {
  emotion: Emotion
  voices: readonly Voice[]
  onEdit: () => void
  onDuplicate: () => void
  onHide: (hidden: boolean) => void
}

export function EmotionCard({ emotion, voices, onEdit, onDuplicate, onHide }: EmotionCardProps) {
  const [over, setOver] = useState(false)
  const [busy, setBusy] = useState(false)
  const [sentence, setSentence] = useState("")
  const parameters = parametersIn(emotion)
  const nameOf = (id: string) => voices.find((voice) => voice.id === id)?.name ?? id

  async function attach(work: () => Promise<unknown>) {
    setBusy(true)
    try {
      await work()
      await useLibrary.getState().refresh()
    } catch (error) {
      showError(error)
    } finally {
      setBusy(false)
    }
  }

  const takes = (event: DragEvent) => event.dataTransfer.types.some((type) => type === VOICE || type === "Files")
  const dropping = {
    onDragOver: (event: DragEvent) => {
      if (!takes(event)) return
      event.preventDefault()
      event.dataTransfer.dropEffect = "copy"
      setOver(true)
    },
    onDragLeave: () => setOver(false),
    onDrop: (event: DragEvent) => {
      if (!takes(event)) return
      event.preventDefault()
      setOver(false)
      const voice = event.dataTransfer.getData(VOICE)
      const files = [...event.dataTransfer.files]
      if (voice) void attach(() => changeVoices(emotion.id, (ids) => attached(ids, voice)))
      else if (files.length) void attach(() => addEach(emotion.id, files))
    },
  }

  function remove() {
    onHide(true)
    const finish = async () => {
      try {
        await deleteEmotion(emotion.id)
        await useLibrary.getState().refresh()
      } catch (error) {
        showError(error)
      }
      onHide(false) // also what is gone: one that is made anew of the same name has its id
    }
    undoable(
      `“${emotion.name}” is deleted`,
      () => void finish(),
      () => onHide(false),
    )
  }

  return (
    <article
      aria-label={emotion.name}
      aria-busy={busy}
      className={`flex h-full flex-col gap-3 rounded-2xl border bg-surface p-4 transition-shadow hover:shadow-md ${
        over ? "border-accent ring-2 ring-accent" : "border-line"
      }`}
      {...dropping}
    >
      <div className="flex items-start gap-1">
        <div className="min-w-0 flex-1">
          <h3 className="truncate font-semibold" title={emotion.name}>
            {emotion.name}
          </h3>
          <p className="text-sm break-words text-soft">{emotion.description || "No description"}</p>
        </div>
        <IconButton icon="edit" label={`Edit ${emotion.name}`} onClick={onEdit} />
        <IconButton icon="copy" label={`Duplicate ${emotion.name}`} onClick={onDuplicate} />
        <IconButton icon="trash" label={`Delete ${emotion.name}`} onClick={remove} />
      </div>
      <p className="text-sm">{parameters.join(" · ") || "Sets no parameter"}</p>
      <ul aria-label={`Voices of ${emotion.name}`} className="flex flex-wrap gap-1.5">
        {emotion.voices.map((id) => (
          <li key={id} className="flex max-w-full items-center rounded-full bg-raised pl-3 text-sm">
            <span className="truncate" title={nameOf(id)}>
              {nameOf(id)}
            </span>
            <button
              type="button"
              aria-label={`Take ${nameOf(id)} out of ${emotion.name}`}
              className="grid size-9 shrink-0 place-items-center rounded-full text-soft hover:text-ink"
              onClick={() => void attach(() => changeVoices(emotion.id, (ids) => ids.filter((other) => other !== id)))}
            >
              ×
            </button>
          </li>
        ))}
        <li>
          <select
            aria-label={`Add a voice to ${emotion.name}`}
            className="h-9 max-w-36 rounded-full border border-line-strong/60 bg-surface px-2 text-sm text-soft"
            value=""
            onChange={(event) => {
              const { value } = event.target
              if (value) void attach(() => changeVoices(emotion.id, (ids) => attached(ids, value)))
            }}
          >
            <option value="">Add a voice</option>
            {voices
              .filter(({ id, status }) => !emotion.voices.includes(id) && status !== "failed")
              .map(({ id, name }) => (
                <option key={id} value={id}>
                  {name}
                </option>
              ))}
          </select>
        </li>
      </ul>
      <div className="mt-auto flex items-center gap-1">
        <PreviewButton
          id={`emotion ${emotion.id} ${emotion.updated_at} ${sentence}`}
          label={`${emotion.name} spoken`}
          fetch={() => testEmotion(emotion.id, sentence.trim() || undefined)}
        />
        <input
          aria-label={`What ${emotion.name} says when it is tried`}
          className="min-h-9 w-full min-w-0 rounded-lg border border-transparent bg-transparent px-2 text-sm placeholder:text-soft hover:border-line focus:border-line-strong/60"
          placeholder="This is how I speak when…"
          maxLength={300}
          value={sentence}
          onChange={(event) => setSentence(event.target.value)}
        />
        <Button
          small
          tone="quiet"
          className="shrink-0"
          onClick={() => {
            useDrafts.getState().change({ emotion: emotion.id })
            useNotices.getState().show({ tone: "info", title: `The draft is spoken with “${emotion.name}”` }, 3_000)
            goTo("speak")
          }}
        >
          Speak with it
        </Button>
      </div>
    </article>
  )
}

/** A voice of each, in their order. */
async function addEach(emotion: string, files: readonly File[]): Promise<void> {
  for (const file of files) await addVoiceTo(emotion, file)
}
