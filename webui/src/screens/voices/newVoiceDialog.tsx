// Makes a voice: of files, or of what the microphone hears.
import { useEffect, useRef, useState } from "react"
import { ApiError, inWords, type Trouble } from "~/api/errors"
import { createVoice } from "~/api/library"
import type { Voice } from "~/api/types"
import { Button, IconButton } from "~/components/buttons"
import { Dialog } from "~/components/dialog"
import { PreviewButton } from "~/components/previewButton"
import { TroubleNote } from "~/components/troubleNote"
import { newId } from "~/stores/drafts"
import { useLibrary } from "~/stores/library"
import { QualityHints } from "./qualityHints"
import { aliasesFrom, type NewRecording, nameFrom, whyUnfit } from "./recordings"
import { RecordPanel } from "./recordPanel"
import { VoiceFields } from "./voiceFields"

interface NewVoiceDialogProps {
  open: boolean
  /** Files that were dropped. */
  dropped: readonly File[]
  onClose: () => void
}

const EMPTY = { name: "", language: "", aliases: "", description: "", isDefault: false }

export function NewVoiceDialog({ open, dropped, onClose }: NewVoiceDialogProps) {
  const [recordings, setRecordings] = useState<NewRecording[]>([])
  const [fields, setFields] = useState(EMPTY)
  const [recording, setRecording] = useState(false)
  const [trouble, setTrouble] = useState<{ param: string | null; said: Trouble } | null>(null)
  const [busy, setBusy] = useState(false)
  const [made, setMade] = useState<Voice | null>(null)
  const picker = useRef<HTMLInputElement>(null)
  const unfit = whyUnfit(recordings)
  const change = (changed: Partial<typeof EMPTY>) => setFields((now) => ({ ...now, ...changed }))

  function add(files: readonly File[]) {
    if (!files.length) return
    setRecordings((now) => [...now, ...files.map((file) => ({ id: newId(), blob: file, filename: file.name }))])
    setFields((now) => ({ ...now, name: now.name || nameFrom(files[0]?.name ?? "") }))
  }

  // biome-ignore lint/correctness/useExhaustiveDependencies: what is dropped is taken in once
  useEffect(() => add(dropped), [dropped])

  function close() {
    if (busy) return
    setRecordings([])
    setFields(EMPTY)
    setRecording(false)
    setTrouble(null)
    setMade(null)
    onClose()
  }

  async function create() {
    setBusy(true)
    setTrouble(null)
    try {
      const { name, language, aliases, description, isDefault } = fields
      const given = { name, description, language, aliases: aliasesFrom(aliases), default: isDefault }
      setMade(await createVoice({ files: recordings, ...given }))
      void useLibrary.getState().refresh()
    } catch (error) {
      setTrouble({ param: error instanceof ApiError ? error.param : null, said: inWords(error) })
    } finally {
      setBusy(false)
    }
  }

  const errorOf = (name: string) => (trouble?.param === name ? trouble.said.detail : null)
  const elsewhere = trouble && !["name", "language", "aliases", "description"].includes(trouble.param ?? "")

  return (
    <Dialog
      open={open}
      title={made ? `${made.name} is made` : recording ? "Record a voice" : "New voice"}
      onClose={close}
    >
      {made ? (
        <Made voice={made} onClose={close} />
      ) : recording ? (
        <RecordPanel
          onCancel={() => setRecording(false)}
          onTaken={(blob) => {
            setRecording(false)
            setRecordings((now) => [...now, { id: newId(), blob, filename: `recording-${now.length + 1}.wav` }])
          }}
        />
      ) : (
        <form
          className="flex flex-col gap-4"
          onSubmit={(event) => {
            event.preventDefault()
            void create()
          }}
        >
          <input
            ref={picker}
            type="file"
            multiple
            accept="audio/*,video/webm,.wav,.mp3,.flac,.ogg,.m4a,.webm"
            className="hidden"
            aria-hidden="true"
            tabIndex={-1}
            data-testid="recordings"
            onChange={(event) => {
              add([...(event.target.files ?? [])])
              event.target.value = ""
            }}
          />
          <p className="text-sm text-soft">
            3 to 10 seconds of clear speech of one person, without music. Several recordings may be given.
          </p>
          {recordings.length > 0 && (
            <ul aria-label="Recordings" className="flex flex-col gap-1">
              {recordings.map(({ id, blob, filename }) => (
                <li key={id} className="flex items-center gap-2 rounded-lg bg-raised py-1 pr-1 pl-1">
                  <PreviewButton id={`new ${id}`} label={filename} fetch={() => Promise.resolve(blob)} />
                  <span className="min-w-0 flex-1 truncate">{filename}</span>
                  <IconButton
                    icon="close"
                    label={`Leave ${filename} out`}
                    onClick={() => setRecordings((now) => now.filter((one) => one.id !== id))}
                  />
                </li>
              ))}
            </ul>
          )}
          <div className="flex flex-wrap gap-2">
            <Button icon="upload" onClick={() => picker.current?.click()}>
              Choose files
            </Button>
            <Button icon="microphone" onClick={() => setRecording(true)}>
              Record with the microphone
            </Button>
          </div>
          {unfit && (
            <p role="alert" className="text-sm text-bad">
              {unfit}
            </p>
          )}
          <VoiceFields fields={fields} errorOf={errorOf} onChange={change} />
          <label className="flex min-h-9 items-center gap-2">
            <input
              type="checkbox"
              className="size-4 accent-accent"
              checked={fields.isDefault}
              onChange={(event) => change({ isDefault: event.target.checked })}
            />
            Speak with it where no voice is chosen
          </label>
          {elsewhere && <TroubleNote trouble={trouble.said} />}
          <div className="flex justify-end gap-2">
            <Button tone="quiet" onClick={close} disabled={busy}>
              Cancel
            </Button>
            <Button
              tone="accent"
              type="submit"
              disabled={busy || !recordings.length || unfit !== null || !fields.name.trim()}
            >
              {busy ? "Examining the recordings…" : "Create the voice"}
            </Button>
          </div>
        </form>
      )}
    </Dialog>
  )
}

/** What the fleet found in the recordings. */
function Made({ voice, onClose }: { voice: Voice; onClose: () => void }) {
  return (
    <div className="flex flex-col gap-4">
      <QualityHints samples={voice.samples} />
      <p className="text-sm text-soft">
        It can be used at once: whoever speaks with it first waits until it is prepared.
      </p>
      <div className="flex justify-end">
        <Button tone="accent" onClick={onClose}>
          Done
        </Button>
      </div>
    </div>
  )
}
