// The wire contract's own names, from the fleet's OpenAPI document.
import type { components } from "./schema"

type Schemas = components["schemas"]

/** What has a default is always told. */
export type Voice = Required<Schemas["Voice"]>
export type VoiceChanges = Schemas["VoiceChanges"]
export type VoiceSample = Schemas["VoiceSample"]
export type RecordingReport = Schemas["RecordingReport"]
export type SpeakingDefaults = Schemas["SpeakingDefaults"]
export type Emotion = Schemas["Emotion"]
export type EmotionProfile = Schemas["EmotionProfile"]
export type LibraryEvent = Schemas["LibraryEvent"]
export type FleetStats = Schemas["FleetStats"]
export type WorkerStats = Schemas["WorkerStats"]
export type WorkerState = Schemas["WorkerState"]
/** What newer balancers tell beside it is null or empty where it is not known. */
export type BalancerHealth = Schemas["BalancerHealth"] & {
  demo_voice?: boolean
  parameters?: string[] | null
  max_text_chars?: number | null
  clones_voices?: boolean | null
}
export type StreamRequest = Schemas["StreamRequest"]
/** What a spoken text's stream of events tells, but for errors. */
export type SpeechEvent =
  | Required<Schemas["SpeechSegments"]>
  | Required<Schemas["SpeechAudioDelta"]>
  | Required<Schemas["SpeechSegmentDone"]>
  | Required<Schemas["SpeechAudioDone"]>
export type AudioFormat = Schemas["AudioFormat"]
export type ErrorBody = Schemas["ErrorBody"]

/** Hz of all sound, mono. */
export const SAMPLE_RATE = 24_000
