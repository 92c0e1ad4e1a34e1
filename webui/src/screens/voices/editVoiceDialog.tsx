// Changes a voice; where somebody else has changed it since, both versions are shown.
import { useEffect, useState } from "react"
import { ApiError, inWords, type Trouble } from "~/api/errors"
import { changeVoice, readVoice } from "~/api/library"
import type { Voice } from "~/api/types"
import { Button } from "~/components/buttons"
import { Dialog } from "~/components/dialog"
import { TextField } from "~/components/fields"
import { TroubleNote } from "~/components/troubleNote"
import { useLibrary } from "~/stores/library"
import { LanguageField } from "./languageField"
import { aliasesFrom } from "./recordings"

interface Fields {
  name: string
  description: string
  language: string
  aliases: string
}

const fieldsOf = ({ name, description, language, aliases }: Voice): Fields => ({
  name,
  description,
  language: language ?? "",
  aliases: aliases.join(", "),
})

const NAMES: Record<keyof Fields, string> = {
  name: "Name",
  description: "Description",
  language: "Language",
  aliases: "Aliases",
}

export function EditVoiceDialog({ id, onClose }: { id: string; onClose: () => void }) {
  const [fields, setFields] = useState<Fields | null>(null)
  const [version, setVersion] = useState<string>()
  const [theirs, setTheirs] = useState<Fields | null>(null)
  const [trouble, setTrouble] = useState<{ param: string | null; said: Trouble } | null>(null)
  const [busy, setBusy] = useState(false)

  useEffect(() => {
    let over = false
    readVoice(id)
      .then(({ body, version: read }) => {
        if (over) return
        setFields(fieldsOf(body as Voice))
        setVersion(read)
      })
      .catch((error) => !over && setTrouble({ param: null, said: inWords(error) }))
    return () => {
      over = true
    }
  }, [id])

  async function save(over: string | undefined) {
    if (!fields) return
    setBusy(true)
    setTrouble(null)
    try {
      await changeVoice(
        id,
        {
          name: fields.name,
          description: fields.description,
          language: fields.language || null,
          aliases: aliasesFrom(fields.aliases),
        },
        over,
      )
      await useLibrary.getState().refresh()
      onClose()
    } catch (error) {
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
  const elsewhere = trouble && !Object.hasOwn(NAMES, trouble.param ?? "")

  return (
    <Dialog open title={theirs ? "Somebody else has changed this voice" : "Edit the voice"} onClose={onClose}>
      {theirs && fields ? (
        <Conflict
          mine={fields}
          theirs={theirs}
          busy={busy}
          onMine={() => void save(version)}
          onTheirs={() => {
            setFields(theirs)
            setTheirs(null)
          }}
        />
      ) : (
        <form
          className="flex flex-col gap-4"
          onSubmit={(event) => {
            event.preventDefault()
            void save(version)
          }}
        >
          {!fields && !trouble && <p className="text-soft">Loading…</p>}
          {fields && (
            <>
              <TextField
                label="Name"
                required
                maxLength={128}
                value={fields.name}
                error={errorOf("name")}
                onChange={(event) => change({ name: event.target.value })}
              />
              <TextField
                label="Description"
                maxLength={1000}
                value={fields.description}
                error={errorOf("description")}
                onChange={(event) => change({ description: event.target.value })}
              />
              <LanguageField
                value={fields.language}
                error={errorOf("language")}
                onChange={(language) => change({ language })}
              />
              <TextField
                label="Aliases"
                hint="Other names it answers to, separated by commas."
                value={fields.aliases}
                error={errorOf("aliases")}
                onChange={(event) => change({ aliases: event.target.value })}
              />
            </>
          )}
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

interface ConflictProps {
  mine: Fields
  theirs: Fields
  busy: boolean
  onMine: () => void
  onTheirs: () => void
}

function Conflict({ mine, theirs, busy, onMine, onTheirs }: ConflictProps) {
  return (
    <div className="flex flex-col gap-4">
      <table className="w-full table-fixed text-left text-sm">
        <caption className="sr-only">Both versions, field by field</caption>
        <thead className="text-soft">
          <tr>
            <th scope="col" className="w-28 py-1 font-normal">
              Field
            </th>
            <th scope="col" className="py-1 font-normal">
              Yours
            </th>
            <th scope="col" className="py-1 font-normal">
              Theirs
            </th>
          </tr>
        </thead>
        <tbody>
          {(Object.keys(NAMES) as (keyof Fields)[]).map((name) => (
            <tr key={name} className={mine[name] === theirs[name] ? "text-soft" : "bg-warn-wash"}>
              <th scope="row" className="px-1 py-1.5 font-normal">
                {NAMES[name]}
              </th>
              <td className="px-1 py-1.5 break-words">{mine[name] || "–"}</td>
              <td className="px-1 py-1.5 break-words">{theirs[name] || "–"}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <div className="flex flex-wrap justify-end gap-2">
        <Button onClick={onTheirs}>Go on from theirs</Button>
        <Button tone="accent" disabled={busy} onClick={onMine}>
          Save mine over it
        </Button>
      </div>
    </div>
  )
}
