// Emotion profiles as they are edited: read from the fleet's, compared, and given back.
import { ApiError } from "~/api/errors"
import { readEmotion, replaceEmotion } from "~/api/library"
import type { Emotion, EmotionProfile, Voice } from "~/api/types"
import { PARAMETERS, type ParameterName } from "~/stores/parameters"

/** All that a profile holds, with nothing left out: what is not set is null. */
export type Profile = Required<Pick<EmotionProfile, "name" | "character" | "description" | "voices">> &
  Record<ParameterName, number | null>

export const EMPTY: Profile = {
  name: "",
  character: "",
  description: "",
  voices: [],
  exaggeration: null,
  cfg_weight: null,
  temperature: null,
  min_p: null,
  top_p: null,
  top_k: null,
  repetition_penalty: null,
}

export function profileOf(emotion: Emotion): Profile {
  const { id: _id, created_at: _created, updated_at: _updated, ...profile } = emotion
  return profile
}

export const FIELDS: readonly { name: keyof Profile; label: string }[] = [
  { name: "name", label: "Name" },
  { name: "character", label: "Character" },
  { name: "description", label: "Description" },
  { name: "voices", label: "Voices" },
  ...PARAMETERS.map(({ name, label }) => ({ name, label })),
]

/** A field's value for a person. */
export function said(profile: Profile, name: keyof Profile, voices: readonly Voice[]): string {
  const value = profile[name]
  if (Array.isArray(value))
    return value.map((id) => voices.find((voice) => voice.id === id)?.name ?? id).join(", ") || "none"
  return value === null || value === "" ? "not set" : String(value)
}

/** The parameters that a profile sets, in words. */
export function parametersIn(emotion: Emotion): string[] {
  return PARAMETERS.filter(({ name }) => emotion[name] !== null).map(({ name, label }) => `${label} ${emotion[name]}`)
}

export const ANYONE = "Anyone"

/** By character, in order of their names; profiles of none come first. */
export function byCharacter(emotions: readonly Emotion[]): [string, Emotion[]][] {
  const groups = new Map<string, Emotion[]>()
  for (const emotion of emotions) {
    const character = emotion.character || ANYONE
    groups.set(character, [...(groups.get(character) ?? []), emotion])
  }
  return [...groups].sort(([a], [b]) => Number(b === ANYONE) - Number(a === ANYONE) || a.localeCompare(b))
}

const ATTEMPTS = 3

/** Changes the voices of the profile as it is now: what somebody else changed in it meanwhile stays. */
export async function changeVoices(id: string, change: (voices: string[]) => string[]): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const { body, version } = await readEmotion(id)
    const profile = profileOf(body)
    try {
      await replaceEmotion(id, { ...profile, voices: change(profile.voices) }, version)
      return
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 412 || attempt === ATTEMPTS) throw error
    }
  }
}

export function attached(voices: readonly string[], voice: string): string[] {
  return voices.includes(voice) ? [...voices] : [...voices, voice]
}
