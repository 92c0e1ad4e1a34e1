// What has been spoken here: kept with its sound in this browser, the oldest going when there is no more room.
import { type DBSchema, type IDBPDatabase, openDB } from "idb"
import { create } from "zustand"
import type { Trouble } from "~/api/errors"
import type { SpokenWith } from "~/api/speech"
import { Sound } from "~/audio/sound"
import type { Settings } from "./drafts"

/** Where a segment of the text lies in the sound. Seconds; `endS` is null until it has been spoken. */
export interface Segment {
  text: string
  endS: number | null
}

export interface Take {
  id: string
  /** Milliseconds since the epoch. */
  madeAt: number
  text: string
  settings: Settings
  spokenWith: SpokenWith | null
  segments: Segment[]
  /** `stopped` by the listener; `cut short` by a failure. */
  state: "arriving" | "whole" | "stopped" | "cut short"
  trouble: Trouble | null
  /** Measured here, in seconds: from the request to its first samples, to its last, and how long the sound is. */
  firstSoundS: number | null
  arrivedS: number | null
  durationS: number
}

/** Time from the request to the last sample over the length of the sound; null before there is any. */
export function realTimeFactor({ arrivedS, durationS }: Pick<Take, "arrivedS" | "durationS">): number | null {
  return arrivedS === null || durationS === 0 ? null : arrivedS / durationS
}

interface Schema extends DBSchema {
  takes: { key: string; value: Take }
  sounds: { key: string; value: ArrayBuffer }
}

const MOST_TAKES = 60
const MOST_BYTES = 256 * 2 ** 20

/** One of a take's samples is two bytes. */
const bytesOf = (take: Take) => Math.round(take.durationS * 48_000)

export interface Takes {
  /** The newest first. */
  takes: Take[]
  /** Whether they outlive this tab: some private windows keep nothing. */
  lasting: boolean
  /** The two that are compared. */
  a: string | null
  b: string | null
  load: () => Promise<void>
  begin: (take: Take, sound: Sound) => void
  update: (id: string, change: Partial<Take>) => void
  /** Writes a take that has ended to disk. */
  keep: (id: string) => Promise<void>
  /** Its sound, read from disk where it is not at hand; null when it is gone. */
  soundOf: (id: string) => Promise<Sound | null>
  /** Deletes it; what is returned puts it back. */
  remove: (id: string) => Promise<() => void>
  compare: (slot: "a" | "b", id: string | null) => void
}

const sounds = new Map<string, Sound>()
let database: Promise<IDBPDatabase<Schema> | null> | null = null

function open(): Promise<IDBPDatabase<Schema> | null> {
  database ??= openDB<Schema>("chatterbox-fleet", 1, {
    upgrade: (db) => {
      db.createObjectStore("takes", { keyPath: "id" })
      db.createObjectStore("sounds")
    },
  }).catch(() => null)
  return database
}

export const useTakes = create<Takes>()((set, get) => {
  const find = (id: string) => get().takes.find((take) => take.id === id)

  async function prune() {
    let bytes = 0
    const surplus = get().takes.filter((take, place) => {
      bytes += bytesOf(take)
      return take.state !== "arriving" && place > 0 && (place >= MOST_TAKES || bytes > MOST_BYTES)
    })
    for (const { id } of surplus) await get().remove(id)
  }

  return {
    takes: [],
    lasting: true,
    a: null,
    b: null,
    load: async () => {
      const db = await open()
      if (!db) {
        set({ lasting: false })
        return
      }
      const kept = await db.getAll("takes")
      set(({ takes }) => {
        const here = new Set(takes.map(({ id }) => id))
        return { takes: [...takes, ...kept.filter(({ id }) => !here.has(id))].sort((a, b) => b.madeAt - a.madeAt) }
      })
    },
    begin: (take, sound) => {
      sounds.set(take.id, sound)
      set(({ takes }) => ({ takes: [take, ...takes] }))
    },
    update: (id, change) =>
      set(({ takes }) => ({ takes: takes.map((take) => (take.id === id ? { ...take, ...change } : take)) })),
    keep: async (id) => {
      const [take, sound, db] = [find(id), sounds.get(id), await open()]
      if (!take || !sound) return
      try {
        if (!db) throw new Error("no database")
        const writing = db.transaction(["takes", "sounds"], "readwrite")
        await Promise.all([
          writing.objectStore("takes").put(take),
          writing.objectStore("sounds").put(sound.samples().buffer as ArrayBuffer, id),
          writing.done,
        ])
      } catch {
        set({ lasting: false }) // full, or not allowed: it stays until the tab is closed
      }
      await prune()
    },
    soundOf: async (id) => {
      const held = sounds.get(id)
      if (held) return held
      const samples = await (await open())?.get("sounds", id)
      if (!samples) return null
      const sound = Sound.of(new Int16Array(samples))
      sounds.set(id, sound)
      return sound
    },
    remove: async (id) => {
      const [take, sound] = [find(id), await get().soundOf(id)]
      set(({ takes, a, b }) => ({
        takes: takes.filter((other) => other.id !== id),
        a: a === id ? null : a,
        b: b === id ? null : b,
      }))
      sounds.delete(id)
      const db = await open()
      await Promise.all([db?.delete("takes", id), db?.delete("sounds", id)]).catch(() => undefined)
      return () => {
        if (!take || !sound) return
        sounds.set(id, sound)
        set(({ takes }) => ({ takes: [...takes, take].sort((a, b) => b.madeAt - a.madeAt) }))
        void get().keep(id)
      }
    },
    compare: (slot, id) =>
      set(({ a, b }) => {
        const other = slot === "a" ? b : a
        const kept = other === id ? null : other
        return slot === "a" ? { a: id, b: kept } : { a: kept, b: id }
      }),
  }
})
