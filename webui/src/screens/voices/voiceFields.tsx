// What a voice is called and said to be: the same fields where one is made and where it is changed.
import { TextField } from "~/components/fields"
import { LanguageField } from "./languageField"

/** As they are typed: aliases separated by commas, no language as an empty one. */
export interface Fields {
  name: string
  description: string
  language: string
  aliases: string
}

interface VoiceFieldsProps {
  fields: Fields
  /** What is wrong with a field, where something is. */
  errorOf: (name: string) => string | null
  onChange: (changed: Partial<Fields>) => void
}

export function VoiceFields({ fields, errorOf, onChange }: VoiceFieldsProps) {
  return (
    <>
      <TextField
        label="Name"
        required
        maxLength={128}
        value={fields.name}
        error={errorOf("name")}
        onChange={(event) => onChange({ name: event.target.value })}
      />
      <LanguageField
        value={fields.language}
        error={errorOf("language")}
        onChange={(language) => onChange({ language })}
      />
      <TextField
        label="Aliases"
        hint="Other names it answers to, separated by commas."
        value={fields.aliases}
        error={errorOf("aliases")}
        onChange={(event) => onChange({ aliases: event.target.value })}
      />
      <TextField
        label="Description"
        maxLength={1000}
        value={fields.description}
        error={errorOf("description")}
        onChange={(event) => onChange({ description: event.target.value })}
      />
    </>
  )
}
