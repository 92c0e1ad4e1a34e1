// Named drafts: texts and how they are to be spoken, kept in this browser and nowhere else.

import { create } from "zustand"
import { persist } from "zustand/middleware"
import { Refused } from "~/api/errors"
import type { AudioFormat, StreamRequest } from "~/api/types"
import { PARAMETERS, type ParameterName } from "./parameters"
import { storage } from "./storage"

export type Quality = "draft" | "standard" | "high"

/** How to speak. What is null or left out is the emotion's, the voice's or the server's to say. */
export interface Settings {
  voice: string | null
  emotion: string | null
  language: string | null
  parameters: Partial<Record<ParameterName, number>>
  quality: Quality | null
  /** 1 is the voice's own tempo. */
  speed: number
  /** The seed to speak with where it is locked, else the one that was drawn last. */
  seed: number | null
  seedLocked: boolean
  /** Of the file that is downloaded. */
  format: AudioFormat
}

export interface Draft {
  id: string
  name: string
  text: string
  settings: Settings
  /** Milliseconds since the epoch. */
  changedAt: number
}

export const INITIAL: Settings = {
  voice: null,
  emotion: null,
  language: null,
  parameters: {},
  quality: null,
  speed: 1,
  seed: null,
  seedLocked: false,
  format: "mp3",
}

const FIRST_TEXT = "Hello. This text is spoken by your own machines. Change it, choose a voice, and press Generate."

export interface Drafts {
  drafts: Draft[]
  currentId: string
  setText: (text: string) => void
  change: (settings: Partial<Settings>) => void
  select: (id: string) => void
  create: (name?: string, from?: Partial<Pick<Draft, "text" | "settings">>) => void
  rename: (id: string, name: string) => void
  duplicate: (id: string) => void
  /** Takes it away; what is returned puts it back. The last draft is followed by an empty one. */
  remove: (id: string) => () => void
  /** Adds drafts of an exported file. Throws `Refused` for a file that is none. */
  importFrom: (text: string) => number
}

export function newDraft(name: string, from: Partial<Pick<Draft, "text" | "settings">> = {}): Draft {
  const { text = "", settings = INITIAL } = from
  return { id: newId(), name, text, settings: { ...settings }, changedAt: Date.now() }
}

/** Unlike `crypto.randomUUID`, which pages served without TLS lack. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("")
}

let opened = false

const first = newDraft("First draft", { text: FIRST_TEXT })

export const useDrafts = create<Drafts>()(
  persist(
    (set, get) => {
      const edit = (id: string, change: (draft: Draft) => Partial<Draft>) =>
        set(({ drafts }) => ({
          drafts: drafts.map((draft) =>
            draft.id === id ? { ...draft, ...change(draft), changedAt: Date.now() } : draft,
          ),
        }))
      return {
        drafts: [first],
        currentId: first.id,
        setText: (text) => edit(current(get()).id, () => ({ text })),
        change: (settings) => edit(current(get()).id, (draft) => ({ settings: { ...draft.settings, ...settings } })),
        select: (currentId) => set({ currentId }),
        create: (name, from) => {
          const draft = newDraft(name ?? freeName("Draft", get().drafts), from)
          set(({ drafts }) => ({ drafts: [draft, ...drafts], currentId: draft.id }))
        },
        rename: (id, name) => edit(id, (draft) => ({ name: name.trim().slice(0, 80) || draft.name })),
        duplicate: (id) => {
          const draft = get().drafts.find((known) => known.id === id)
          if (draft) get().create(freeName(draft.name, get().drafts), draft)
        },
        remove: (id) => {
          const { drafts, currentId } = get()
          const at = drafts.findIndex((draft) => draft.id === id)
          const removed = drafts[at]
          if (!removed) return () => undefined
          const kept = drafts.filter((draft) => draft.id !== id)
          const left = kept.length ? kept : [newDraft("Draft")]
          const next = currentId === id ? ((left[Math.min(at, left.length - 1)] ?? left[0])?.id ?? "") : currentId
          set({ drafts: left, currentId: next })
          return () => set((now) => ({ drafts: now.drafts.toSpliced(at, 0, removed), currentId: removed.id }))
        },
        importFrom: (text) => {
          const imported = read(text)
          set(({ drafts }) => ({ drafts: [...imported, ...drafts], currentId: imported[0]?.id ?? get().currentId }))
          return imported.length
        },
      }
    },
    {
      name: "fleet.drafts",
      version: 1,
      storage,
      // Which draft is open is each tab's own, once it has begun with the one that was open last.
      merge: (kept, now) => ({ ...now, ...(kept as Partial<Drafts>), ...(opened && { currentId: now.currentId }) }),
    },
  ),
)

export function current({ drafts, currentId }: Pick<Drafts, "drafts" | "currentId">): Draft {
  return drafts.find((draft) => draft.id === currentId) ?? drafts[0] ?? first
}

opened = true

// Another tab has changed them: they are read and not written, which the other tab would read in turn without end.
globalThis.addEventListener?.("storage", ({ key }) => {
  if (key === "fleet.drafts") void useDrafts.persist.rehydrate()
})

/** The request for the fleet: only what was chosen. */
export function requestOf(text: string, settings: Settings): Omit<StreamRequest, "format" | "stream_format"> {
  const { voice, emotion, language, quality, parameters, speed, seed, seedLocked } = settings
  return {
    text,
    ...(voice !== null && { voice }),
    ...(emotion !== null && { emotion }),
    ...(language !== null && { language }),
    ...(quality !== null && { quality }),
    ...(speed !== 1 && { speed }),
    ...(seedLocked && seed !== null && { seed }),
    ...parameters,
  }
}

const KIND = "chatterbox-fleet-drafts"

/** A file of drafts, for another browser. */
export function exported(drafts: readonly Draft[]): string {
  return `${JSON.stringify({ kind: KIND, version: 1, drafts }, null, 2)}\n`
}

function read(text: string): Draft[] {
  let found: { kind?: string; drafts?: unknown }
  try {
    found = JSON.parse(text)
  } catch {
    throw new Refused("This file is not JSON: choose one that was exported here.")
  }
  if (found?.kind !== KIND || !Array.isArray(found.drafts)) throw new Refused("This file holds no drafts of this page.")
  return found.drafts.map((entry: Partial<Draft> | null, index) => {
    if (typeof entry?.name !== "string" || typeof entry.text !== "string") {
      throw new Refused(`Draft ${index + 1} of this file has no name or no text.`)
    }
    return newDraft(entry.name.trim().slice(0, 80) || `Draft ${index + 1}`, {
      text: entry.text,
      settings: checked(entry.settings ?? {}),
    })
  })
}

const FORMATS: readonly AudioFormat[] = ["mp3", "opus", "aac", "flac", "wav", "pcm"]

/** Settings of unknown origin: what is not as it should be takes its default. */
function checked(given: Partial<Record<keyof Settings, unknown>>): Settings {
  const name = (value: unknown) => (typeof value === "string" && value ? value : null)
  const number = (value: unknown, least: number, most: number, whole = false) =>
    typeof value === "number" && value >= least && value <= most && (!whole || Number.isInteger(value)) ? value : null
  const parameters: Settings["parameters"] = {}
  for (const { name: key, least, most, whole } of PARAMETERS) {
    const value = number((given.parameters as Record<string, unknown> | undefined)?.[key], least, most, whole)
    if (value !== null) parameters[key] = value
  }
  const quality = given.quality
  return {
    voice: name(given.voice),
    emotion: name(given.emotion),
    language: name(given.language),
    parameters,
    quality: quality === "draft" || quality === "standard" || quality === "high" ? quality : null,
    speed: number(given.speed, 0.25, 4) ?? 1,
    seed: number(given.seed, 0, Number.MAX_SAFE_INTEGER, true),
    seedLocked: given.seedLocked === true,
    format: FORMATS.find((format) => format === given.format) ?? INITIAL.format,
  }
}

function freeName(wanted: string, drafts: readonly Draft[]): string {
  const taken = new Set(drafts.map(({ name }) => name))
  for (let number = 2; ; number++) {
    const name = `${wanted.replace(/ \d+$/, "")} ${number}`
    if (!taken.has(name)) return name
  }
}
