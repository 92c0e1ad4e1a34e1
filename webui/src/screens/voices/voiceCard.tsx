// One voice: what it is called, whether it is ready, how it sounds, and what can be done with it.

import { ApiError } from "~/api/errors"
import { changeVoice, deleteVoice, spokenSentence, voiceSample } from "~/api/library"
import type { Voice } from "~/api/types"
import { Button, IconButton } from "~/components/buttons"
import { languageName } from "~/components/languages"
import { PreviewButton } from "~/components/previewButton"
import { useDrafts } from "~/stores/drafts"
import { useLibrary } from "~/stores/library"
import { showError, undoable, useNotices } from "~/stores/notices"
import { goTo } from "~/stores/route"
import { QualityHints } from "./qualityHints"

const SENTENCE = "This is how I sound. Would you like to hear more of me?"

interface VoiceCardProps {
  voice: Voice
  onEdit: () => void
  /** Hides the card while its deletion can be undone, or shows it again. */
  onHide: (hidden: boolean) => void
}

export function VoiceCard({ voice, onEdit, onHide }: VoiceCardProps) {
  const usable = voice.status !== "failed"
  const version = voice.updated_at ?? ""
  return (
    <article
      aria-label={voice.name}
      className="flex h-full flex-col gap-3 rounded-2xl border border-line bg-surface p-4 transition-shadow hover:shadow-md"
    >
      <div className="flex items-start gap-2">
        <div className="min-w-0 flex-1">
          <h3 className="truncate font-semibold" title={voice.name}>
            {voice.name}
          </h3>
          <p className="text-sm break-words text-soft">
            {[voice.description, voice.language && languageName(voice.language)].filter(Boolean).join(" · ") ||
              "No description"}
          </p>
        </div>
        <DefaultButton voice={voice} />
      </div>
      <Status voice={voice} />
      {voice.aliases.length > 0 && (
        <p className="text-sm break-words">
          <span className="text-soft">Also </span>
          {voice.aliases.join(", ")}
        </p>
      )}
      {voice.samples.length > 0 && (
        <details>
          <summary className="rounded-lg py-1 text-sm">
            {voice.samples.length === 1 ? "Its recording" : `Its ${voice.samples.length} recordings`}
            {voice.samples.some(({ report }) => report.notes?.length) && <span className="text-warn"> · hints</span>}
          </summary>
          <div className="mt-2 flex flex-col gap-2">
            <QualityHints samples={voice.samples} />
            {voice.samples.map(({ sha256, filename }, index) => (
              <div key={sha256} className="flex items-center gap-2 text-sm">
                <PreviewButton
                  id={`sample ${voice.id} ${sha256}`}
                  label={`the recording ${filename}`}
                  fetch={() => voiceSample(voice.id, index)}
                />
                <span className="min-w-0 truncate">{filename}</span>
              </div>
            ))}
          </div>
        </details>
      )}
      <div className="mt-auto flex items-center gap-1 pt-1">
        {usable && (
          <PreviewButton
            id={`voice ${voice.id} ${version}`}
            label={`${voice.name} speaking`}
            fetch={() => spokenSentence(SENTENCE, voice.id)}
          />
        )}
        <Button
          small
          tone="quiet"
          disabled={!usable}
          onClick={() => {
            useDrafts.getState().change({ voice: voice.id })
            goTo("speak")
          }}
        >
          Speak with it
        </Button>
        {!voice.builtin && (
          <div className="ml-auto flex">
            <IconButton icon="edit" label={`Edit ${voice.name}`} onClick={onEdit} />
            <IconButton icon="trash" label={`Delete ${voice.name}`} onClick={() => remove(voice, onHide)} />
          </div>
        )}
      </div>
    </article>
  )
}

function Status({ voice }: { voice: Voice }) {
  if (voice.status === "failed") {
    return (
      <p role="status" className="rounded-lg bg-bad-wash px-2 py-1 text-sm text-bad">
        It cannot be used: {voice.reason ?? "its recordings are unfit"}
      </p>
    )
  }
  if (voice.status === "pending") {
    return (
      <p role="status" className="animate-pulse text-sm text-warn">
        Being prepared…
      </p>
    )
  }
  return <p className="text-sm text-good">{voice.builtin ? "Built in" : "Ready"}</p>
}

function DefaultButton({ voice }: { voice: Voice }) {
  async function choose() {
    try {
      await changeVoice(voice.id, { default: !voice.default })
      await useLibrary.getState().refresh()
    } catch (error) {
      showError(error)
    }
  }
  return (
    <IconButton
      icon="star"
      label={voice.default ? `${voice.name} is the default voice` : `Make ${voice.name} the default voice`}
      pressed={voice.default}
      filled={voice.default}
      disabled={voice.status === "failed"}
      onClick={() => void choose()}
    />
  )
}

function remove(voice: Voice, onHide: (hidden: boolean) => void) {
  onHide(true)
  const show = () => onHide(false)
  const finish = async (force: boolean) => {
    try {
      await deleteVoice(voice.id, force)
      await useLibrary.getState().refresh()
      show() // one that is made anew under the same name has the same id
    } catch (error) {
      show()
      if (error instanceof ApiError && error.code === "voice_in_use") offerForce(voice, error, () => void finish(true))
      else if (!(error instanceof ApiError && error.code === "voice_not_found")) showError(error)
    }
  }
  undoable(`“${voice.name}” is deleted`, () => void finish(false), show)
}

/** Emotions name it: it is taken out of them when that is wanted. */
function offerForce(voice: Voice, error: ApiError, run: () => void) {
  const id = useNotices.getState().show(
    {
      tone: "bad",
      title: `“${voice.name}” is still used`,
      detail: `${error.message}.`,
      action: {
        label: "Delete it there, too",
        run: () => {
          useNotices.getState().dismiss(id)
          run()
        },
      },
    },
    20_000,
  )
}
