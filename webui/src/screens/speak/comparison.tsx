// Two takes side by side: one is heard, and a key goes over to the other at the same place.
import { useEffect, useState } from "react"
import type { Sound } from "~/audio/sound"
import { Button, IconButton } from "~/components/buttons"
import { Waveform } from "~/components/waveform"
import { usePlayer } from "~/stores/player"
import { type Take, useTakes } from "~/stores/takes"
import { play } from "./takeCard"

export function Comparison() {
  const { takes, a, b, compare } = useTakes()
  const player = usePlayer()
  const first = takes.find(({ id }) => id === a)
  const second = takes.find(({ id }) => id === b)
  if (!first || !second) return null
  const heard = player.takeId === second.id ? second : first
  const other = heard === first ? second : first

  /** At the same share of the sound, for takes differ in length. */
  const change = () => {
    const share = player.takeId === heard.id ? player.position / Math.max(heard.durationS, 1e-6) : 0
    void play(other.id, player.ended ? 0 : share * other.durationS)
  }

  return (
    <section
      aria-label="Comparison"
      className="flex flex-col gap-3 rounded-2xl border border-accent bg-accent-wash p-4"
    >
      <div className="flex flex-wrap items-center gap-2">
        <h3 className="mr-auto font-semibold">A and B</h3>
        <Button
          tone="accent"
          icon={player.playing && player.takeId === heard.id ? "pause" : "play"}
          onClick={() => void play(heard.id)}
        >
          {player.playing && player.takeId === heard.id ? "Pause" : `Play ${heard === first ? "A" : "B"}`}
        </Button>
        <Button onClick={change}>Go on with {heard === first ? "B" : "A"}</Button>
        <IconButton
          icon="close"
          label="End the comparison"
          onClick={() => {
            compare("a", null)
            compare("b", null)
          }}
        />
      </div>
      <Row name="A" take={first} />
      <Row name="B" take={second} />
      <Differences first={first} second={second} />
    </section>
  )
}

function Row({ name, take }: { name: string; take: Take }) {
  const player = usePlayer()
  const [sound, setSound] = useState<Sound | null>(null)
  const { id } = take
  useEffect(() => {
    let over = false
    void useTakes
      .getState()
      .soundOf(id)
      .then((found) => !over && setSound(found))
    return () => {
      over = true
    }
  }, [id])
  const isHeard = player.takeId === id
  return (
    <div className="flex items-center gap-3 rounded-xl bg-surface p-2">
      <span className={`w-6 text-center font-semibold ${isHeard ? "text-accent" : "text-soft"}`}>{name}</span>
      <div className="min-w-0 flex-1">
        <Waveform
          peaks={sound?.peaks ?? []}
          position={isHeard ? player.position : 0}
          duration={take.durationS}
          label={`Position in ${name}`}
          height={44}
          onSeek={(seconds) => void play(id, seconds)}
        />
      </div>
    </div>
  )
}

/** What the two were made with, where it differs. */
function Differences({ first, second }: { first: Take; second: Take }) {
  const [one, two] = [facts(first), facts(second)]
  const names = [...new Set([...Object.keys(one), ...Object.keys(two)])].filter((name) => one[name] !== two[name])
  if (names.length === 0) return <p className="text-sm text-soft">Both were made with the same settings and seed.</p>
  return (
    <table className="w-full text-left text-sm">
      <caption className="sr-only">What differs between A and B</caption>
      <thead className="text-soft">
        <tr>
          <th scope="col" className="pr-3 font-normal">
            Differs
          </th>
          <th scope="col" className="font-normal">
            A
          </th>
          <th scope="col" className="font-normal">
            B
          </th>
        </tr>
      </thead>
      <tbody>
        {names.map((name) => (
          <tr key={name}>
            <th scope="row" className="pr-3 font-normal">
              {name}
            </th>
            <td className="pr-3 break-words">{one[name] ?? "–"}</td>
            <td className="break-words">{two[name] ?? "–"}</td>
          </tr>
        ))}
      </tbody>
    </table>
  )
}

function facts({ text, settings, spokenWith }: Take): Record<string, string> {
  const told: [string, string | null | undefined][] = [
    ["text", text.length > 60 ? `${text.slice(0, 60)}…` : text],
    ["voice", spokenWith?.voice],
    ["emotion", spokenWith?.emotion],
    ["language", spokenWith?.language],
    ["seed", spokenWith?.seed],
    ["quality", settings.quality],
    ["speed", String(settings.speed)],
    ...Object.entries(settings.parameters).map(([name, value]): [string, string] => [
      name.replaceAll("_", " "),
      String(value),
    ]),
  ]
  return Object.fromEntries(told.filter((entry): entry is [string, string] => Boolean(entry[1])))
}
