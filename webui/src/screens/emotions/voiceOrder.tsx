// The voices of a profile in their order: the first that there is speaks.
import { type DragEvent, useState } from "react"
import type { Voice } from "~/api/types"
import { IconButton } from "~/components/buttons"
import { Select } from "~/components/fields"
import { attached } from "./profiles"

interface VoiceOrderProps {
  ids: readonly string[]
  voices: readonly Voice[]
  error: string | null
  onChange: (ids: string[]) => void
}

export function VoiceOrder({ ids, voices, error, onChange }: VoiceOrderProps) {
  const [dragged, setDragged] = useState<number | null>(null)
  const nameOf = (id: string) => voices.find((voice) => voice.id === id)?.name ?? id
  const move = (from: number, to: number) => {
    const moved = ids.toSpliced(from, 1)
    onChange(moved.toSpliced(to, 0, ids[from] as string))
  }
  return (
    <div className="flex flex-col gap-2">
      <p className="text-sm font-medium">Voices</p>
      {ids.length > 0 ? (
        <ol aria-label="Voices in their order" className="flex flex-col gap-1">
          {ids.map((id, place) => (
            <li
              key={id}
              draggable
              className={`flex items-center gap-1 rounded-lg bg-raised pl-3 ${dragged === place ? "opacity-50" : ""}`}
              onDragStart={(event: DragEvent) => {
                event.dataTransfer.effectAllowed = "move"
                setDragged(place)
              }}
              onDragEnd={() => setDragged(null)}
              onDragOver={(event: DragEvent) => dragged !== null && event.preventDefault()}
              onDrop={(event: DragEvent) => {
                event.preventDefault()
                if (dragged !== null && dragged !== place) move(dragged, place)
                setDragged(null)
              }}
            >
              <span className="min-w-0 flex-1 truncate">
                {nameOf(id)}
                {place === 0 && <span className="ml-2 text-sm text-soft">speaks</span>}
              </span>
              <IconButton
                icon="chevron"
                className="rotate-180"
                label={`${nameOf(id)}: further up`}
                disabled={place === 0}
                onClick={() => move(place, place - 1)}
              />
              <IconButton
                icon="chevron"
                label={`${nameOf(id)}: further down`}
                disabled={place === ids.length - 1}
                onClick={() => move(place, place + 1)}
              />
              <IconButton
                icon="close"
                label={`Take ${nameOf(id)} out`}
                onClick={() => onChange(ids.filter((other) => other !== id))}
              />
            </li>
          ))}
        </ol>
      ) : (
        <p className="text-sm text-soft">None: the voice that is chosen speaks, or the default one.</p>
      )}
      <Select
        label="Add a voice"
        value=""
        error={error}
        onChange={(event) => event.target.value && onChange(attached(ids, event.target.value))}
      >
        <option value="">Choose…</option>
        {voices
          .filter(({ id, status }) => !ids.includes(id) && status !== "failed")
          .map(({ id, name }) => (
            <option key={id} value={id}>
              {name}
            </option>
          ))}
      </Select>
    </div>
  )
}
