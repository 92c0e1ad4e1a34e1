// A language by its tag, with those that are known already on offer.
import { useId } from "react"
import { TextField } from "~/components/fields"
import { languageName } from "~/components/languages"
import { useLibrary } from "~/stores/library"

const COMMON = ["en", "en-GB", "de", "fr", "es", "it", "pt", "nl", "pl", "sv", "tr", "ru", "ar", "hi", "zh", "ja", "ko"]

interface LanguageFieldProps {
  value: string
  error: string | null
  onChange: (tag: string) => void
}

export function LanguageField({ value, error, onChange }: LanguageFieldProps) {
  const known = useLibrary(({ voices }) => voices)
  const list = useId()
  const tags = [...new Set([...COMMON, ...known.flatMap(({ language }) => language ?? [])])]
  return (
    <>
      <TextField
        label="Language"
        list={list}
        maxLength={35}
        placeholder="en, de, fr …"
        value={value}
        error={error}
        hint={
          value && languageName(value) !== value
            ? languageName(value)
            : "A tag such as de or en-GB; empty where it does not matter."
        }
        onChange={(event) => onChange(event.target.value.trim())}
      />
      <datalist id={list}>
        {tags.map((tag) => (
          <option key={tag} value={tag}>
            {languageName(tag)}
          </option>
        ))}
      </datalist>
    </>
  )
}
