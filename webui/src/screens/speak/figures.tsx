// What was measured of a take, and what it was spoken with.
import { useLibrary } from "~/stores/library"
import { realTimeFactor, type Take } from "~/stores/takes"

export function Figures({ take, underruns }: { take: Take; underruns: number }) {
  const rtf = realTimeFactor(take)
  const { voices, emotions } = useLibrary()
  const used = take.spokenWith
  const entries: [string, string, string][] = []
  if (take.firstSoundS !== null) {
    entries.push([
      "First sound",
      `${take.firstSoundS.toFixed(2)} s`,
      "From the request to its first samples, measured in this page",
    ])
  }
  if (rtf !== null) {
    entries.push([
      "Real-time factor",
      rtf.toFixed(3),
      "Time until all had arrived over the length of the sound: below 1 is faster than speech",
    ])
  }
  if (used) {
    entries.push(["Voice", voices.find(({ id }) => id === used.voice)?.name ?? used.voice, "Whose voice it is"])
    if (used.emotion) {
      const name = emotions.find(({ id }) => id === used.emotion)?.name ?? used.emotion
      entries.push(["Emotion", name, "The emotion profile it was spoken with"])
    }
    entries.push(["Seed", used.seed, "With the same seed and settings the same sound is made again"])
    if (used.worker) entries.push(["Worker", used.worker, "Which of the fleet's workers spoke"])
    if (used.ignored.length) {
      entries.push(["Not honoured", used.ignored.join(", "), "What was asked for and this engine does not do"])
    }
  }
  if (underruns > 0) entries.push(["Ran dry", `${underruns} ×`, "How often the sound came slower than it is heard"])
  return (
    <dl className="flex flex-wrap gap-x-5 gap-y-1 text-sm">
      {entries.map(([name, value, meaning]) => (
        <div key={name} className="flex gap-1.5" title={meaning}>
          <dt className="text-soft">{name}</dt>
          <dd className="font-medium tabular-nums">{value}</dd>
        </div>
      ))}
    </dl>
  )
}
