// Voices: all there are, and new ones from files, by dropping them anywhere, or from the microphone.
import { type DragEvent, useRef, useState } from "react"
import type { Voice } from "~/api/types"
import { Button } from "~/components/buttons"
import { languageName } from "~/components/languages"
import { Reading, ScreenHeader } from "~/components/screenHeader"
import { useConnection } from "~/stores/connection"
import { useLibrary } from "~/stores/library"
import { EditVoiceDialog } from "./editVoiceDialog"
import { NewVoiceDialog } from "./newVoiceDialog"
import { VoiceCard } from "./voiceCard"

const NO_FILES: readonly File[] = []

export default function VoicesScreen() {
  const { voices, loaded, trouble, refresh } = useLibrary()
  const clones = useConnection(({ health }) => health?.clones_voices)
  const [search, setSearch] = useState("")
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set())
  const [making, setMaking] = useState(false)
  const [dropped, setDropped] = useState(NO_FILES)
  const [editing, setEditing] = useState<string | null>(null)
  const [over, setOver] = useState(false)
  const depth = useRef(0)
  const shown = voices.filter((voice) => !hidden.has(voice.id) && mentions(voice, search))
  const own = shown.filter(({ builtin }) => !builtin)
  const builtIn = shown.filter(({ builtin }) => builtin)

  const isFiles = (event: DragEvent) => event.dataTransfer.types.includes("Files") && clones !== false
  const dropping = {
    onDragEnter: (event: DragEvent) => {
      if (!isFiles(event)) return
      depth.current += 1
      setOver(true)
    },
    onDragOver: (event: DragEvent) => isFiles(event) && event.preventDefault(),
    onDragLeave: (event: DragEvent) => {
      if (isFiles(event) && --depth.current <= 0) setOver(false)
    },
    onDrop: (event: DragEvent) => {
      if (!isFiles(event)) return
      event.preventDefault()
      depth.current = 0
      setOver(false)
      setDropped([...event.dataTransfer.files])
      setMaking(true)
    },
  }

  const list = (title: string, some: readonly Voice[]) => (
    <section aria-label={title} className="flex flex-col gap-3">
      <h2 className="font-semibold">{title}</h2>
      <ul className="grid grid-cols-[repeat(auto-fill,minmax(min(100%,18rem),1fr))] gap-4">
        {some.map((voice) => (
          <li key={voice.id} className="min-w-0">
            <VoiceCard
              voice={voice}
              onEdit={() => setEditing(voice.id)}
              onHide={(hide) =>
                setHidden((now) => new Set(hide ? [...now, voice.id] : [...now].filter((id) => id !== voice.id)))
              }
            />
          </li>
        ))}
      </ul>
    </section>
  )

  return (
    <section aria-label="Voices" className="relative flex min-h-[70dvh] flex-col gap-6" {...dropping}>
      <ScreenHeader title="Voices" search={search} onSearch={setSearch}>
        <Button tone="accent" icon="plus" disabled={clones === false} onClick={() => setMaking(true)}>
          New voice
        </Button>
      </ScreenHeader>
      {clones === false && (
        <p className="text-sm text-soft">
          The engine that runs makes no voices of recordings: only its own can be used.
        </p>
      )}
      <Reading loaded={loaded} trouble={trouble} onRetry={() => void refresh()} />
      {own.length > 0 && list("Your voices", own)}
      {loaded && own.length === 0 && !search && (
        <div className="rounded-2xl border-2 border-dashed border-line p-8 text-center">
          <p className="font-medium">Make the first voice of your own</p>
          <p className="mt-1 text-soft">
            Drop a recording of 3 to 10 seconds here, or press New voice to choose a file or record one.
          </p>
        </div>
      )}
      {builtIn.length > 0 && list("The engine’s own", builtIn)}
      {loaded && shown.length === 0 && search && <p className="text-soft">No voice is called “{search}”.</p>}
      {over && (
        <div className="pointer-events-none absolute inset-0 z-20 flex items-center justify-center rounded-2xl border-2 border-dashed border-accent bg-accent-wash/90 text-lg text-accent">
          Drop recordings to make a voice of them
        </div>
      )}
      <NewVoiceDialog
        open={making}
        dropped={dropped}
        onClose={() => {
          setMaking(false)
          setDropped(NO_FILES)
        }}
      />
      {editing && <EditVoiceDialog id={editing} onClose={() => setEditing(null)} />}
    </section>
  )
}

function mentions({ name, description, aliases, language }: Voice, search: string): boolean {
  const words = [name, description, ...aliases, language ?? "", language ? languageName(language) : ""]
  return words.join(" ").toLowerCase().includes(search.trim().toLowerCase())
}
