// The speaking parameters in plain words: their ranges, what they do, and whose value holds.
import type { Emotion, SpeakingDefaults, Voice } from "~/api/types"

export type ParameterName =
  | "exaggeration"
  | "cfg_weight"
  | "temperature"
  | "min_p"
  | "top_p"
  | "top_k"
  | "repetition_penalty"

export interface Parameter {
  name: ParameterName
  label: string
  meaning: string
  /** What the two ends are like. */
  ends: [string, string]
  /** What the slider spans; the field beside it takes what the fleet takes. */
  from: number
  to: number
  step: number
  least: number
  most: number
  /** Whether it is a count. */
  whole?: boolean
  /** Upstream Chatterbox's own value. */
  initial: number
  fine: boolean
}

export const PARAMETERS: readonly Parameter[] = [
  {
    name: "exaggeration",
    label: "Expressiveness",
    meaning: "How much feeling is in it. Much of it also speaks faster.",
    ends: ["flat", "dramatic"],
    from: 0,
    to: 1.5,
    step: 0.05,
    least: 0,
    most: 2,
    initial: 0.5,
    fine: false,
  },
  {
    name: "cfg_weight",
    label: "Guidance",
    meaning: "How closely text and voice are followed. Less is slower and freer, and keeps less of a sample’s accent.",
    ends: ["free", "close"],
    from: 0,
    to: 1,
    step: 0.05,
    least: 0,
    most: 1,
    initial: 0.5,
    fine: false,
  },
  {
    name: "temperature",
    label: "Variety",
    meaning: "How far from the likeliest way of saying it the voice may stray.",
    ends: ["even", "lively"],
    from: 0.05,
    to: 2,
    step: 0.05,
    least: 0,
    most: 5,
    initial: 0.8,
    fine: false,
  },
  {
    name: "min_p",
    label: "Least likelihood (min-p)",
    meaning: "Sounds less likely than this share of the likeliest are never chosen.",
    ends: ["any", "few"],
    from: 0,
    to: 0.5,
    step: 0.01,
    least: 0,
    most: 1,
    initial: 0.05,
    fine: true,
  },
  {
    name: "top_p",
    label: "Likeliest share (top-p)",
    meaning: "Only the likeliest sounds that together reach this probability are chosen from.",
    ends: ["few", "all"],
    from: 0.05,
    to: 1,
    step: 0.05,
    least: 0.01,
    most: 1,
    initial: 1,
    fine: true,
  },
  {
    name: "top_k",
    label: "Likeliest count (top-k)",
    meaning: "Only so many of the likeliest sounds are chosen from; 0 is no limit.",
    ends: ["no limit", "many"],
    from: 0,
    to: 1000,
    step: 10,
    least: 0,
    most: 100_000,
    whole: true,
    initial: 0,
    fine: true,
  },
  {
    name: "repetition_penalty",
    label: "Against repetition",
    meaning: "How unlikely a sound that was just made becomes. Too much of it slurs.",
    ends: ["none", "strong"],
    from: 1,
    to: 2.5,
    step: 0.05,
    least: 1,
    most: 10,
    initial: 1.2,
    fine: true,
  },
]

/** A value that holds where none is set, and whose it is. */
export interface Inherited {
  value: number
  from: string
}

/** What each parameter is where the request says nothing: the emotion's, else the voice's, else the server's. */
export function inheritedFrom(
  emotion: Pick<Emotion, ParameterName | "name"> | undefined,
  voice: Pick<Voice, "name" | "defaults"> | undefined,
): Record<ParameterName, Inherited> {
  const sources: [SpeakingDefaults | undefined, string][] = [
    [emotion, `from ${emotion?.name ?? ""}`],
    [voice?.defaults, `from ${voice?.name ?? ""}`],
  ]
  return Object.fromEntries(
    PARAMETERS.map(({ name, initial }) => {
      const source = sources.find(([values]) => values?.[name] != null)
      return [
        name,
        source ? { value: source[0]?.[name] as number, from: source[1] } : { value: initial, from: "default" },
      ]
    }),
  ) as Record<ParameterName, Inherited>
}

/** Why a parameter does nothing with the engine that runs; null where it does something, or nothing is known. */
export function whyIgnored(name: string, honoured: readonly string[] | null | undefined): string | null {
  return honoured == null || honoured.includes(name) ? null : "The engine that runs does not use this."
}

/** The nearest value that the fleet takes; null for what is no number. */
export function within(
  { least, most, whole }: Pick<Parameter, "least" | "most" | "whole">,
  typed: string,
): number | null {
  const number = Number(typed.replace(",", "."))
  const value = whole ? Math.round(number) : number
  return typed.trim() === "" || !Number.isFinite(value) ? null : Math.max(least, Math.min(most, value))
}
