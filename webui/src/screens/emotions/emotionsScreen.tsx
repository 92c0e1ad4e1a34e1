// Emotions: named ways of speaking by character; voices are dragged onto them.
import { type DragEvent, useEffect, useState } from "react"
import type { Emotion, Voice } from "~/api/types"
import { Button } from "~/components/buttons"
import { Icon } from "~/components/icons"
import { Reading, ScreenHeader } from "~/components/screenHeader"
import { useLibrary } from "~/stores/library"
import { EmotionCard, VOICE } from "./emotionCard"
import { type Editing, EmotionDialog, NEW } from "./emotionDialog"
import { byCharacter, profileOf } from "./profiles"

export default function EmotionsScreen() {
  const { emotions, voices, loaded, trouble, refresh } = useLibrary()
  const [search, setSearch] = useState("")
  const [editing, setEditing] = useState<Editing | null>(null)
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set())
  useEffect(keepBesideCards, [])
  const shown = emotions.filter((emotion) => !hidden.has(emotion.id) && mentions(emotion, search))

  return (
    <div className="flex flex-col gap-6">
      <ScreenHeader title="Emotions" search={search} onSearch={setSearch}>
        <Button tone="accent" icon="plus" onClick={() => setEditing(NEW)}>
          New emotion
        </Button>
      </ScreenHeader>
      <Reading loaded={loaded} trouble={trouble} onRetry={() => void refresh()} />
      <div className="grid items-start gap-6 xl:grid-cols-[minmax(0,1fr)_16rem]">
        <div className="flex min-w-0 flex-col gap-8">
          {byCharacter(shown).map(([character, theirs]) => (
            <section key={character} aria-label={character} className="flex flex-col gap-3">
              <h2 className="font-semibold break-words">{character}</h2>
              <ul className="grid grid-cols-[repeat(auto-fill,minmax(min(100%,22rem),1fr))] gap-4">
                {theirs.map((emotion) => (
                  <li key={emotion.id} className="min-w-0">
                    <EmotionCard
                      emotion={emotion}
                      voices={voices}
                      onEdit={() => setEditing({ id: emotion.id })}
                      onDuplicate={() => setEditing({ from: copyOf(emotion, emotions) })}
                      onHide={(hide) =>
                        setHidden(
                          (now) => new Set(hide ? [...now, emotion.id] : [...now].filter((id) => id !== emotion.id)),
                        )
                      }
                    />
                  </li>
                ))}
              </ul>
            </section>
          ))}
          {loaded && shown.length === 0 && (
            <p className="rounded-2xl border-2 border-dashed border-line p-8 text-center break-words text-soft">
              {search
                ? `No emotion is called “${search}”.`
                : "There is no emotion yet. Make one: a name, and how it speaks."}
            </p>
          )}
        </div>
        <Shelf voices={voices} />
      </div>
      {editing && (
        <EmotionDialog key={"id" in editing ? editing.id : "new"} editing={editing} onClose={() => setEditing(null)} />
      )}
    </div>
  )
}

/** Voices to be dragged; on small screens and by keyboard they are added on the cards. */
function Shelf({ voices }: { voices: readonly Voice[] }) {
  return (
    <aside
      aria-label="Voices to drag"
      className="sticky top-6 hidden rounded-2xl border border-line bg-surface p-4 xl:block"
    >
      <h2 className="font-semibold">Voices</h2>
      <p className="mb-3 text-sm text-soft">Drag one onto an emotion, or drop a recording on it.</p>
      <ul className="flex max-h-[60dvh] flex-col gap-1 overflow-y-auto">
        {voices
          .filter(({ status }) => status !== "failed")
          .map(({ id, name }) => (
            <li
              key={id}
              draggable
              className="flex cursor-grab items-center gap-2 rounded-lg bg-raised px-3 py-2 active:cursor-grabbing"
              onDragStart={(event: DragEvent) => {
                event.dataTransfer.effectAllowed = "copy"
                event.dataTransfer.setData(VOICE, id)
              }}
            >
              <Icon name="drag" className="text-soft" />
              <span className="truncate">{name}</span>
            </li>
          ))}
      </ul>
    </aside>
  )
}

/** A file that misses the cards is not taken: left to itself, the browser would show it in the place of the page. */
function keepBesideCards(): () => void {
  const refuse = (event: globalThis.DragEvent) => {
    if (event.defaultPrevented || !event.dataTransfer?.types.includes("Files")) return
    event.preventDefault()
    event.dataTransfer.dropEffect = "none"
  }
  addEventListener("dragover", refuse)
  addEventListener("drop", refuse)
  return () => {
    removeEventListener("dragover", refuse)
    removeEventListener("drop", refuse)
  }
}

function mentions({ name, character, description }: Emotion, search: string): boolean {
  return `${name} ${character} ${description}`.toLowerCase().includes(search.trim().toLowerCase())
}

function copyOf(emotion: Emotion, emotions: readonly Emotion[]) {
  const taken = new Set(emotions.map(({ name }) => name))
  const stem = emotion.name.slice(0, 112) // a name holds at most 128 characters
  let name = `${stem} (copy)`
  for (let number = 2; taken.has(name); number++) name = `${stem} (copy ${number})`
  return { ...profileOf(emotion), name }
}
