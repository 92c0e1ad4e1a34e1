// Voices and emotion profiles: reading all of them, changing one, hearing of changes.
import { api, bodyOf, versioned } from "./http"
import { eventsOf } from "./sse"
import type { Emotion, EmotionProfile, LibraryEvent, SpeakingDefaults, Voice, VoiceChanges } from "./types"

const PAGE = 1000

export async function allVoices(): Promise<Voice[]> {
  const voices: Voice[] = []
  let cursor: string | null = null
  do {
    const query: { limit: number; cursor?: string } = cursor === null ? { limit: PAGE } : { limit: PAGE, cursor }
    const page = await bodyOf(api.GET("/voices", { params: { query } }))
    voices.push(...(page.voices as Voice[]))
    cursor = page.next ?? null
  } while (cursor !== null)
  return voices
}

export async function allEmotions(): Promise<Emotion[]> {
  const emotions: Emotion[] = []
  let cursor: string | null = null
  do {
    const query: { limit: number; cursor?: string } = cursor === null ? { limit: PAGE } : { limit: PAGE, cursor }
    const page = await bodyOf(api.GET("/emotions", { params: { query } }))
    emotions.push(...page.emotions)
    cursor = page.next ?? null
  } while (cursor !== null)
  return emotions
}

export interface NewVoice {
  files: { blob: Blob; filename: string }[]
  name: string
  description?: string
  language?: string
  aliases?: string[]
  default?: boolean
}

/** Makes a voice of recordings. Throws `ApiError` whose `param` names what is at fault. */
export async function createVoice(voice: NewVoice, signal?: AbortSignal): Promise<Voice> {
  const form = new FormData()
  for (const { blob, filename } of voice.files) form.append("file", blob, filename)
  form.append("name", voice.name)
  if (voice.description) form.append("description", voice.description)
  if (voice.language) form.append("language", voice.language)
  for (const alias of voice.aliases ?? []) form.append("aliases", alias)
  if (voice.default) form.append("default", "true")
  return await bodyOf(
    api.POST("/voices", { body: form as never, ...(signal && { signal }) }) as Promise<{ data?: Voice }>,
  )
}

const at = (id: string) => ({ path: { voice_id: id } })
const emotionAt = (id: string) => ({ path: { emotion_id: id } })
const ifMatch = (version: string | undefined) => (version === undefined ? {} : { header: { "if-match": version } })

export const readVoice = (id: string) => versioned(api.GET("/voices/{voice_id}", { params: at(id) }))

export const changeVoice = (id: string, changes: VoiceChanges, version?: string) =>
  versioned(api.PATCH("/voices/{voice_id}", { params: { ...at(id), ...ifMatch(version) }, body: changes }))

export async function deleteVoice(id: string, force = false): Promise<void> {
  await api.DELETE("/voices/{voice_id}", { params: { ...at(id), query: { force } }, keepalive: true })
}

export async function voiceSample(id: string, index = 0): Promise<Blob> {
  const params = { ...at(id), query: { index } }
  return await bodyOf(api.GET("/voices/{voice_id}/sample", { params, parseAs: "blob" }) as Promise<{ data?: Blob }>)
}

export const readEmotion = (id: string) => versioned(api.GET("/emotions/{emotion_id}", { params: emotionAt(id) }))

export const createEmotion = (profile: EmotionProfile) => versioned(api.POST("/emotions", { body: profile }))

/** Throws `ApiError` with status 412 when somebody else has changed the profile since `version` was read. */
export const replaceEmotion = (id: string, profile: EmotionProfile, version?: string) =>
  versioned(api.PUT("/emotions/{emotion_id}", { params: { ...emotionAt(id), ...ifMatch(version) }, body: profile }))

export async function deleteEmotion(id: string): Promise<void> {
  await api.DELETE("/emotions/{emotion_id}", { params: emotionAt(id), keepalive: true })
}

export async function testEmotion(id: string, text?: string, voice?: string): Promise<Blob> {
  const body = { format: "wav" as const, ...(text && { text }), ...(voice && { voice }) }
  return await bodyOf(
    api.POST("/emotions/{emotion_id}/test", { params: emotionAt(id), body, parseAs: "blob" }) as Promise<{
      data?: Blob
    }>,
  )
}

/** A voice made of a recording, as the last one of a profile. */
export async function addVoiceTo(emotion: string, file: File): Promise<Voice> {
  const form = new FormData()
  form.append("file", file, file.name)
  const params = emotionAt(emotion)
  return (await bodyOf(api.POST("/emotions/{emotion_id}/voices", { params, body: form as never }))) as Voice
}

/** A sentence spoken whole, as a WAV file; with the default voice where none is named. */
export async function spokenWith(text: string, voice?: string, parameters: SpeakingDefaults = {}): Promise<Blob> {
  const body = { text, format: "wav" as const, ...(voice && { voice }), ...parameters }
  return await bodyOf(api.POST("/synthesize", { body, parseAs: "blob" }) as Promise<{ data?: Blob }>)
}

export const spokenSentence = (text: string, voice: string) => spokenWith(text, voice)

/** A worker says every 15 s that it is still there. */
const SILENCE_MS = 40_000

/** Changes of the library as they happen, until the connection ends. */
export async function* libraryEvents(signal: AbortSignal): AsyncGenerator<LibraryEvent> {
  const { data } = await api.GET("/voices/events", { parseAs: "stream", signal })
  if (!data) return
  const body = data as unknown as ReadableStream<Uint8Array>
  for await (const { data: told } of eventsOf(body, SILENCE_MS)) yield JSON.parse(told)
}
