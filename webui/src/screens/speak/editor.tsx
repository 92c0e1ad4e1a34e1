// The text: typed, pasted, or dropped as a file; kept as a named draft.
import { type DragEvent, useRef, useState } from "react"
import { Button, IconButton } from "~/components/buttons"
import { useConnection } from "~/stores/connection"
import { current, useDrafts } from "~/stores/drafts"
import { showError } from "~/stores/notices"
import { useSpeaking } from "~/stores/speaking"
import { DraftBar } from "./draftBar"
import { characters, generate, whyNot } from "./generating"
import { textOf } from "./textFile"

const PAUSE_MARK = "[pause 0.5s] "

export function Editor() {
  const draft = useDrafts(current)
  const setText = useDrafts((drafts) => drafts.setText)
  const status = useSpeaking((speaking) => speaking.status)
  const stop = useSpeaking((speaking) => speaking.stop)
  const most = useConnection(({ health }) => health?.max_text_chars)
  useConnection(({ status }) => status) // what follows depends on it
  const area = useRef<HTMLTextAreaElement>(null)
  const picker = useRef<HTMLInputElement>(null)
  const [over, setOver] = useState(false)
  const length = characters(draft.text)
  const obstacle = whyNot(draft.text)
  const tooLong = most != null && length > most

  async function take(file: File | undefined) {
    if (!file) return
    try {
      setText(await textOf(file))
      area.current?.focus()
    } catch (error) {
      showError(error)
    }
  }

  function insertPause() {
    const field = area.current
    if (!field) return
    field.focus()
    field.setRangeText(PAUSE_MARK, field.selectionStart, field.selectionEnd, "end")
    setText(field.value)
  }

  const dropping = {
    onDragOver: (event: DragEvent) => {
      if (!event.dataTransfer.types.includes("Files")) return
      event.preventDefault()
      setOver(true)
    },
    onDragLeave: () => setOver(false),
    onDrop: (event: DragEvent) => {
      if (!event.dataTransfer.types.includes("Files")) return
      event.preventDefault()
      setOver(false)
      void take(event.dataTransfer.files[0])
    },
  }

  return (
    <section aria-label="Text" className="rounded-2xl border border-line bg-surface">
      <DraftBar />
      <div className="relative" {...dropping}>
        <textarea
          ref={area}
          aria-label="Text to speak"
          aria-describedby="text-count"
          aria-invalid={tooLong || undefined}
          className="block max-h-[60dvh] min-h-56 w-full resize-y bg-transparent px-5 py-4 text-lg leading-relaxed placeholder:text-soft focus-visible:outline-offset-[-3px]"
          placeholder="Write, paste, or drop a text file here."
          spellCheck
          value={draft.text}
          onChange={(event) => setText(event.target.value)}
        />
        {over && (
          <div className="pointer-events-none absolute inset-2 flex items-center justify-center rounded-xl border-2 border-dashed border-accent bg-accent-wash text-accent">
            Drop it to read its text in
          </div>
        )}
      </div>
      <div className="flex flex-wrap items-center gap-2 border-t border-line p-3">
        <input
          ref={picker}
          type="file"
          accept=".txt,.md,text/*"
          className="hidden"
          aria-hidden="true"
          tabIndex={-1}
          onChange={(event) => {
            void take(event.target.files?.[0])
            event.target.value = ""
          }}
        />
        <IconButton icon="upload" label="Open a file" onClick={() => picker.current?.click()} />
        <IconButton icon="clock" label="Insert a pause" onClick={insertPause} />
        <p id="text-count" className={`ml-auto text-sm tabular-nums ${tooLong ? "text-bad" : "text-soft"}`}>
          {length.toLocaleString()}
          {most ? ` of ${most.toLocaleString()}` : ""} characters
        </p>
        {status === "idle" ? (
          <Button
            tone="accent"
            icon="speak"
            disabled={obstacle !== null}
            aria-describedby={obstacle ? "why-not" : undefined}
            aria-keyshortcuts="Control+Enter Meta+Enter"
            title="Ctrl+Enter"
            onClick={generate}
          >
            Generate
          </Button>
        ) : (
          <Button tone="bad" icon="stop" onClick={stop} aria-keyshortcuts="Escape" title="Esc">
            Stop
          </Button>
        )}
      </div>
      {obstacle && draft.text.trim() !== "" && (
        <p id="why-not" role="status" className="px-4 pb-3 text-sm text-bad">
          {obstacle}
        </p>
      )}
      {obstacle && draft.text.trim() === "" && (
        <p id="why-not" className="sr-only">
          {obstacle}
        </p>
      )}
    </section>
  )
}
