// Changes a voice; where somebody else has changed it since, both versions are shown.
import { useEffect, useState } from "react"
import { ApiError, inWords, type Trouble } from "~/api/errors"
import { changeVoice, readVoice } from "~/api/library"
import type { Voice } from "~/api/types"
import { Button } from "~/components/buttons"
import { Conflict } from "~/components/conflict"
import { Dialog } from "~/components/dialog"
import { TroubleNote } from "~/components/troubleNote"
import { useLibrary } from "~/stores/library"
import { aliasesFrom } from "./recordings"
import { type Fields, VoiceFields } from "./voiceFields"

const fieldsOf = ({ name, description, language, aliases }: Voice): Fields => ({
  name,
  description,
  language: language ?? "",
  aliases: aliases.join(", "),
})

const FIELDS: readonly { name: keyof Fields; label: string }[] = [
  { name: "name", label: "Name" },
  { name: "description", label: "Description" },
  { name: "language", label: "Language" },
  { name: "aliases", label: "Aliases" },
]

export function EditVoiceDialog({ id, onClose }: { id: string; onClose: () => void }) {
  const [fields, setFields] = useState<Fields | null>(null)
  const [version, setVersion] = useState<string>()
  const [saved, setSaved] = useState<Fields | null>(null)
  const [theirs, setTheirs] = useState<Fields | null>(null)
  const [trouble, setTrouble] = useState<{ param: string | null; said: Trouble } | null>(null)
  const [busy, setBusy] = useState(false)

  useEffect(() => {
    let over = false
    readVoice(id)
      .then(({ body, version: read }) => {
        if (over) return
        setFields(fieldsOf(body as Voice))
        setSaved(fieldsOf(body as Voice))
        setVersion(read)
      })
      .catch((error) => !over && setTrouble({ param: null, said: inWords(error) }))
    return () => {
      over = true
    }
  }, [id])

  async function save({ name, description, language, aliases }: Fields) {
    setBusy(true)
    setTrouble(null)
    try {
      await changeVoice(id, { name, description, language: language || null, aliases: aliasesFrom(aliases) }, version)
      await useLibrary.getState().refresh()
      onClose()
    } catch (error) {
      setFields({ name, description, language, aliases })
      setSaved(theirs ?? saved)
      setTheirs(null)
      if (error instanceof ApiError && error.status === 412) await showTheirs()
      else setTrouble({ param: error instanceof ApiError ? error.param : null, said: inWords(error) })
    } finally {
      setBusy(false)
    }
  }

  async function showTheirs() {
    try {
      const { body, version: read } = await readVoice(id)
      setTheirs(fieldsOf(body as Voice))
      setVersion(read)
    } catch (error) {
      setTrouble({ param: null, said: inWords(error) })
    }
  }

  const change = (changed: Partial<Fields>) => setFields((now) => now && { ...now, ...changed })
  const errorOf = (name: string) => (trouble?.param === name ? trouble.said.detail : null)
  const elsewhere = trouble && !FIELDS.some(({ name }) => name === trouble.param)

  return (
    <Dialog open title={theirs ? "Somebody else has changed this voice" : "Edit the voice"} onClose={onClose}>
      {theirs && fields && saved ? (
        <Conflict
          key={version}
          fields={FIELDS}
          before={saved}
          mine={fields}
          theirs={theirs}
          said={(of, name) => of[name] || "not set"}
          busy={busy}
          onSave={(chosen) => void save(chosen)}
          onTheirs={() => {
            setFields(theirs)
            setSaved(theirs)
            setTheirs(null)
          }}
        />
      ) : (
        <form
          className="flex flex-col gap-4"
          onSubmit={(event) => {
            event.preventDefault()
            if (fields) void save(fields)
          }}
        >
          {!fields && !trouble && <p className="text-soft">Loading…</p>}
          {fields && <VoiceFields fields={fields} errorOf={errorOf} onChange={change} />}
          {elsewhere && <TroubleNote trouble={trouble.said} />}
          <div className="flex justify-end gap-2">
            <Button tone="quiet" onClick={onClose}>
              Cancel
            </Button>
            <Button tone="accent" type="submit" disabled={busy || !fields?.name.trim()}>
              Save
            </Button>
          </div>
        </form>
      )}
    </Dialog>
  )
}
