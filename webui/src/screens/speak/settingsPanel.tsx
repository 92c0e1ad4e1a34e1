// How to speak: voice, emotion, sliders for what the engine honours, seed, tempo and the file's format.
import { spokenSentence, testEmotion } from "~/api/library"
import type { AudioFormat, Emotion, Voice } from "~/api/types"
import { Button } from "~/components/buttons"
import { Select } from "~/components/fields"
import { languageName } from "~/components/languages"
import { ParameterSliders } from "~/components/parameterSliders"
import { type Choice, Picker } from "~/components/picker"
import { Slider } from "~/components/slider"
import { TroubleNote } from "~/components/troubleNote"
import { useConnection } from "~/stores/connection"
import { current, INITIAL, type Quality, useDrafts } from "~/stores/drafts"
import { defaultVoice, useLibrary } from "~/stores/library"
import { inheritedFrom } from "~/stores/parameters"
import { FORMATS } from "./downloadButton"
import { SeedField } from "./seedField"

const PREVIEW = "This is how I sound. Would you like to hear more of me?"

export function SettingsPanel() {
  const settings = useDrafts((drafts) => current(drafts).settings)
  const change = useDrafts((drafts) => drafts.change)
  const { voices, emotions, loaded, trouble } = useLibrary()
  const honoured = useConnection(({ health }) => health?.parameters)
  const emotion = emotions.find(({ id }) => id === settings.emotion)
  const speaker = voiceThatSpeaks(settings.voice, emotion, voices)

  return (
    <section
      aria-label="How to speak"
      className="flex flex-col gap-5 rounded-2xl border border-line bg-surface p-4 sm:p-5"
    >
      {trouble && !loaded && <TroubleNote trouble={trouble} />}
      <Picker
        label="Voice"
        choices={voices.filter(({ status }) => status !== "failed").map(voiceChoice)}
        value={settings.voice}
        none={
          speaker && settings.voice === null
            ? `${speaker.name} (${emotion?.voices.length ? "the emotion’s" : "default"})`
            : "Default voice"
        }
        onChange={(voice) => change({ voice })}
      />
      <Picker
        label="Emotion"
        choices={emotions.map((profile) => emotionChoice(profile, speaker))}
        value={settings.emotion}
        none="None: as the voice is"
        onChange={(chosen) => change({ emotion: chosen })}
      />
      <LanguageField voices={voices} speaker={speaker} />
      <Slider
        label="Speed"
        value={settings.speed}
        from={0.25}
        to={4}
        step={0.05}
        said={`${settings.speed.toFixed(2)} × the voice’s own tempo, at the same pitch`}
        scale="log"
        isSet={settings.speed !== 1}
        onChange={(speed) => change({ speed: speed ?? 1 })}
      />
      <ParameterSliders
        values={settings.parameters}
        inherited={inheritedFrom(emotion, speaker)}
        honoured={honoured}
        onChange={(name, value) => {
          const { [name]: _, ...others } = settings.parameters
          change({ parameters: value === null ? others : { ...others, [name]: value } })
        }}
      />
      <Select
        label="Quality"
        hint={
          honoured && !honoured.includes("quality")
            ? "The engine that runs knows one quality only."
            : "Words and voice of a seed stay the same."
        }
        disabled={honoured != null && !honoured.includes("quality")}
        value={settings.quality ?? ""}
        onChange={(event) => change({ quality: (event.target.value || null) as Quality | null })}
      >
        <option value="">Standard</option>
        <option value="draft">Draft: sooner, rougher</option>
        <option value="high">High: slower, finer</option>
      </Select>
      <SeedField />
      <Select
        label="Format of the download"
        value={settings.format}
        onChange={(event) => change({ format: event.target.value as AudioFormat })}
      >
        {FORMATS.map(({ format, name }) => (
          <option key={format} value={format}>
            {name}
          </option>
        ))}
      </Select>
      <Button
        tone="quiet"
        icon="reset"
        onClick={() => change({ ...INITIAL, format: settings.format, seed: settings.seed })}
      >
        All settings back to their defaults
      </Button>
    </section>
  )
}

/** As the fleet resolves it: the voice that is named, else the emotion's first, else the default one. */
function voiceThatSpeaks(named: string | null, emotion: Emotion | undefined, voices: readonly Voice[]) {
  const find = (id: string | undefined) => voices.find((voice) => voice.id === id)
  if (named !== null) return find(named)
  return find(emotion?.voices.find((id) => find(id))) ?? defaultVoice(voices)
}

function voiceChoice(voice: Voice): Choice {
  const language = voice.language ? languageName(voice.language) : ""
  const pending = voice.status === "pending" ? "being prepared" : ""
  return {
    id: voice.id,
    name: voice.name,
    note: [voice.description, language, pending].filter(Boolean).join(" · "),
    alsoFound: voice.aliases.join(" "),
    preview: {
      id: `voice ${voice.id} ${voice.updated_at ?? ""}`,
      fetch: () => spokenSentence(PREVIEW, voice.id),
    },
  }
}

function emotionChoice(emotion: Emotion, speaker: Voice | undefined): Choice {
  return {
    id: emotion.id,
    name: emotion.name,
    note: [emotion.character, emotion.description].filter(Boolean).join(" · "),
    preview: {
      id: `emotion ${emotion.id} ${emotion.updated_at} ${speaker?.id ?? ""}`,
      fetch: () => testEmotion(emotion.id, undefined, speaker?.id),
    },
  }
}

function LanguageField({ voices, speaker }: { voices: readonly Voice[]; speaker: Voice | undefined }) {
  const language = useDrafts((drafts) => current(drafts).settings.language)
  const change = useDrafts((drafts) => drafts.change)
  const tags = [
    ...new Set([...voices.flatMap((voice) => voice.language ?? []), ...(language ? [language] : [])]),
  ].sort()
  if (tags.length < 2) return null
  return (
    <Select
      label="Language"
      value={language ?? ""}
      onChange={(event) => change({ language: event.target.value || null })}
    >
      <option value="">
        {speaker?.language ? `The voice’s own: ${languageName(speaker.language)}` : "The voice’s own"}
      </option>
      {tags.map((tag) => (
        <option key={tag} value={tag}>
          {languageName(tag)}
        </option>
      ))}
    </Select>
  )
}
