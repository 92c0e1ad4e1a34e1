// Chooses one of many by name: a field that searches, and a list in which each entry can be heard.
import {
  Combobox,
  ComboboxButton,
  ComboboxInput,
  ComboboxOption,
  ComboboxOptions,
  Field,
  Label,
} from "@headlessui/react"
import { useState } from "react"
import { Icon } from "./icons"
import { PreviewButton } from "./previewButton"

export interface Choice {
  id: string
  name: string
  /** A second line. */
  note?: string
  /** Other words it is found by. */
  alsoFound?: string
  preview?: { id: string; fetch: () => Promise<Blob> }
}

interface PickerProps {
  label: string
  choices: readonly Choice[]
  /** The id chosen; null for `none`. */
  value: string | null
  /** What is said of no choice, such as which one then holds. */
  none: string
  onChange: (id: string | null) => void
  disabled?: boolean
}

const NONE = ""

/** Entries in the list at a time; the others are found by typing. */
const MOST_SHOWN = 100

export function Picker({ label, choices, value, none, onChange, disabled }: PickerProps) {
  const [search, setSearch] = useState("")
  const wanted = search.trim().toLowerCase()
  const found = choices.filter(({ name, note, alsoFound }) =>
    `${name} ${note ?? ""} ${alsoFound ?? ""}`.toLowerCase().includes(wanted),
  )
  const nameOf = (id: string) => (id === NONE ? none : (choices.find((choice) => choice.id === id)?.name ?? id))
  const current = choices.find((choice) => choice.id === value)
  return (
    <Field className="flex flex-col gap-1">
      <Label className="text-sm font-medium">{label}</Label>
      <div className="flex items-center gap-1">
        <Combobox
          value={value ?? NONE}
          onChange={(id: string | null) => {
            if (id !== null) onChange(id === NONE ? null : id)
          }}
          onClose={() => setSearch("")}
          disabled={disabled ?? false}
          immediate
        >
          <div className="relative min-w-0 flex-1">
            <ComboboxInput
              className="min-h-10 w-full rounded-lg border border-line-strong/60 bg-surface pr-9 pl-3 text-ink"
              displayValue={nameOf}
              onChange={(event) => setSearch(event.target.value)}
              onFocus={(event) => event.target.select()}
            />
            <ComboboxButton className="absolute inset-y-0 right-0 px-2.5 text-soft" aria-label={`Show all: ${label}`}>
              <Icon name="chevron" />
            </ComboboxButton>
            <ComboboxOptions
              anchor={{ to: "bottom start", gap: 4 }}
              className="z-50 max-h-80! w-(--input-width) min-w-64 rounded-xl border border-line bg-surface p-1 shadow-lg"
            >
              {wanted === "" && <Entry choice={{ id: NONE, name: none }} />}
              {found.slice(0, MOST_SHOWN).map((choice) => (
                <Entry key={choice.id} choice={choice} />
              ))}
              {found.length > MOST_SHOWN && (
                <p className="px-3 py-2 text-sm text-soft">
                  {found.length - MOST_SHOWN} more: type a part of the name.
                </p>
              )}
              {found.length === 0 && <p className="px-3 py-2 text-sm text-soft">Nothing is called “{search}”.</p>}
            </ComboboxOptions>
          </div>
        </Combobox>
        {current?.preview && (
          <PreviewButton id={current.preview.id} label={`a preview of ${current.name}`} fetch={current.preview.fetch} />
        )}
      </div>
    </Field>
  )
}

function Entry({ choice }: { choice: Choice }) {
  return (
    <ComboboxOption
      value={choice.id}
      className="group flex cursor-pointer items-center gap-2 rounded-lg px-3 py-1.5 data-focus:bg-accent-wash"
    >
      <span className="min-w-0 flex-1">
        <span className="block truncate">{choice.name}</span>
        {choice.note && <span className="block truncate text-sm text-soft">{choice.note}</span>}
      </span>
      <Icon name="check" className="invisible text-accent group-data-selected:visible" />
      {choice.preview && <OptionPreview name={choice.name} {...choice.preview} />}
    </ComboboxOption>
  )
}

/** For the pointer only: an option may hold no control of its own; with the keyboard, the button beside the field plays it. */
function OptionPreview({ name, id, fetch }: { name: string; id: string; fetch: () => Promise<Blob> }) {
  return (
    <span
      aria-hidden="true"
      onPointerDown={(event) => event.stopPropagation()}
      onMouseDown={(event) => event.preventDefault()}
      onClick={(event) => event.stopPropagation()}
    >
      <PreviewButton id={id} label={`a preview of ${name}`} fetch={fetch} tabIndex={-1} />
    </span>
  )
}
