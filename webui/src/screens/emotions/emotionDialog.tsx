// Makes or changes a profile: it can be heard before it is saved, and no change is lost unasked.
import { useEffect, useId, useState } from "react"
import { ApiError, inWords, type Trouble } from "~/api/errors"
import { createEmotion, readEmotion, replaceEmotion, spokenWith } from "~/api/library"
import { Button } from "~/components/buttons"
import { Conflict } from "~/components/conflict"
import { Dialog } from "~/components/dialog"
import { TextField } from "~/components/fields"
import { ParameterSliders } from "~/components/parameterSliders"
import { PreviewButton } from "~/components/previewButton"
import { TroubleNote } from "~/components/troubleNote"
import { useConnection } from "~/stores/connection"
import { defaultVoice, useLibrary } from "~/stores/library"
import { inheritedFrom, PARAMETERS } from "~/stores/parameters"
import { usePreviews } from "~/stores/previews"
import { differing } from "~/stores/versions"
import { EMPTY, FIELDS, type Profile, profileOf, said } from "./profiles"
import { VoiceOrder } from "./voiceOrder"

/** What is edited: a profile by its id, or a new one that begins as `from`. */
export type Editing = { id: string } | { from: Profile }

export const NEW: Editing = { from: EMPTY }

const SENTENCE = "This is how I speak when I am in this mood."

const NOT_SAVED = (
  <p role="alert" className="rounded-xl bg-warn-wash p-3 text-sm text-warn">
    What you have changed is not saved.
  </p>
)

export function EmotionDialog({ editing, onClose }: { editing: Editing; onClose: () => void }) {
  const { voices, emotions } = useLibrary()
  const honoured = useConnection(({ health }) => health?.parameters)
  const [profile, setProfile] = useState<Profile | null>("from" in editing ? editing.from : null)
  const [saved, setSaved] = useState<Profile | null>("from" in editing ? editing.from : null)
  const [version, setVersion] = useState<string>()
  const [theirs, setTheirs] = useState<Profile | null>(null)
  const [trouble, setTrouble] = useState<{ param: string | null; said: Trouble } | null>(null)
  const [leaving, setLeaving] = useState(false)
  const [busy, setBusy] = useState(false)
  const [sentence, setSentence] = useState(SENTENCE)
  const [reading, setReading] = useState(0)
  const characters = useId()
  const id = "id" in editing ? editing.id : null

  useEffect(() => () => usePreviews.getState().stop(), [])

  // biome-ignore lint/correctness/useExhaustiveDependencies: read again when that is asked for
  useEffect(() => {
    if (id === null) return
    let over = false
    readEmotion(id)
      .then(({ body, version: read }) => {
        if (over) return
        setProfile(profileOf(body))
        setSaved(profileOf(body))
        setVersion(read)
      })
      .catch((error) => !over && setTrouble({ param: null, said: inWords(error) }))
    return () => {
      over = true
    }
  }, [id, reading])

  async function save(wanted: Profile, over: string | undefined) {
    setBusy(true)
    setTrouble(null)
    try {
      await (id === null ? createEmotion(wanted) : replaceEmotion(id, wanted, over))
      await useLibrary.getState().refresh()
      onClose()
    } catch (error) {
      if (id !== null && error instanceof ApiError && error.status === 412) await showTheirs(id, wanted)
      else {
        setTheirs(null)
        setProfile(wanted)
        setSaved(theirs ?? saved)
        setTrouble({ param: error instanceof ApiError ? error.param : null, said: inWords(error) })
      }
    } finally {
      setBusy(false)
    }
  }

  async function showTheirs(changed: string, wanted: Profile) {
    try {
      const { body, version: read } = await readEmotion(changed)
      const found = profileOf(body)
      if (differing(wanted, found).length === 0) {
        await useLibrary.getState().refresh()
        onClose()
        return
      }
      setProfile(wanted)
      setSaved(theirs ?? saved)
      setTheirs(found)
      setVersion(read)
      setLeaving(false)
    } catch (error) {
      setTrouble({ param: null, said: inWords(error) })
    }
  }

  function close() {
    if (profile && saved && differing(profile, saved).length && !leaving) setLeaving(true)
    else onClose()
  }

  const change = (changed: Partial<Profile>) => {
    setLeaving(false)
    setProfile((now) => now && { ...now, ...changed })
  }
  const errorOf = (name: string) => (trouble?.param === name ? trouble.said.detail : null)
  const elsewhere = trouble && !["name", "character", "description", "voices"].includes(trouble.param ?? "")
  const speaker = voices.find((voice) => voice.id === profile?.voices[0]) ?? defaultVoice(voices)
  const title = theirs ? "Somebody else has changed this emotion" : id === null ? "New emotion" : "Edit the emotion"

  return (
    <Dialog open wide title={title} onClose={close}>
      {theirs && profile && saved ? (
        <div className="flex flex-col gap-4">
          <Conflict
            key={version}
            fields={FIELDS}
            said={(of, name) => said(of, name, voices)}
            before={saved}
            mine={profile}
            theirs={theirs}
            busy={busy}
            onSave={(chosen) => void save(chosen, version)}
            onTheirs={() => {
              setProfile(theirs)
              setSaved(theirs)
              setTheirs(null)
              setLeaving(false)
            }}
          />
          {trouble && <TroubleNote trouble={trouble.said} />}
          {leaving && NOT_SAVED}
        </div>
      ) : (
        <form
          className="flex flex-col gap-4"
          onSubmit={(event) => {
            event.preventDefault()
            if (profile) void save(profile, version)
          }}
        >
          {!profile && !trouble && <p className="text-soft">Loading…</p>}
          {profile && (
            <div className="grid gap-6 sm:grid-cols-2">
              <div className="flex flex-col gap-4">
                <TextField
                  label="Name"
                  required
                  maxLength={128}
                  value={profile.name}
                  error={errorOf("name")}
                  onChange={(event) => change({ name: event.target.value })}
                />
                <TextField
                  label="Character"
                  list={characters}
                  maxLength={128}
                  value={profile.character}
                  error={errorOf("character")}
                  hint="Who speaks so; empty where anyone may."
                  onChange={(event) => change({ character: event.target.value })}
                />
                <datalist id={characters}>
                  {[...new Set(emotions.map(({ character }) => character).filter(Boolean))].map((character) => (
                    <option key={character} value={character} />
                  ))}
                </datalist>
                <TextField
                  label="Description"
                  maxLength={1000}
                  value={profile.description}
                  error={errorOf("description")}
                  onChange={(event) => change({ description: event.target.value })}
                />
                <VoiceOrder
                  ids={profile.voices}
                  voices={voices}
                  error={errorOf("voices")}
                  onChange={(ids) => change({ voices: ids })}
                />
              </div>
              <div className="flex flex-col gap-5">
                <ParameterSliders
                  values={profile}
                  inherited={inheritedFrom(undefined, speaker)}
                  honoured={honoured}
                  lasting
                  onChange={(name, value) => change({ [name]: value })}
                />
                <div className="flex items-end gap-1">
                  <div className="min-w-0 flex-1">
                    <TextField label="Hear it" value={sentence} onChange={(event) => setSentence(event.target.value)} />
                  </div>
                  <PreviewButton
                    id={`unsaved ${JSON.stringify([profile, sentence])}`}
                    label="how it sounds now"
                    fetch={() => spokenWith(sentence.trim() || SENTENCE, speaker?.id, parametersOf(profile))}
                  />
                </div>
              </div>
            </div>
          )}
          {elsewhere && (
            <TroubleNote trouble={trouble.said}>
              {!profile && (
                <Button
                  small
                  onClick={() => {
                    setTrouble(null)
                    setReading(reading + 1)
                  }}
                >
                  Try again
                </Button>
              )}
            </TroubleNote>
          )}
          {leaving && NOT_SAVED}
          <div className="flex justify-end gap-2">
            <Button tone="quiet" onClick={close}>
              {leaving ? "Leave without saving" : "Cancel"}
            </Button>
            <Button tone="accent" type="submit" disabled={busy || !profile?.name.trim()}>
              Save
            </Button>
          </div>
        </form>
      )}
    </Dialog>
  )
}

function parametersOf(profile: Profile) {
  return Object.fromEntries(
    PARAMETERS.filter(({ name }) => profile[name] !== null).map(({ name }) => [name, profile[name]]),
  )
}
