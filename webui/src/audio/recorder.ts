// Records the microphone as it is, for a voice to be made of.
import { Refused } from "~/api/errors"

import worklet from "./recorder.worklet.ts?worker&url"
import { Sound } from "./sound"

/** Seconds after which a recording ends by itself: more than the fleet makes use of. */
export const LONGEST_S = 60

export interface Recording {
  samples: Int16Array
  sampleRate: number
}

export interface Recorder {
  /** Ends it and lets the microphone go; what was heard is at its own rate. */
  stop: () => Recording
}

/** Why this browser cannot record here, in plain words; null where it can. */
export function whyNoMicrophone(): string | null {
  if (!globalThis.isSecureContext) {
    return "Browsers give the microphone only to pages over https, or of this machine itself."
  }
  return "mediaDevices" in navigator ? null : "This browser offers no microphone to pages."
}

/**
 * Begins to record. `onHeard` is called with the loudest sample of each 20 ms or so, from 0 to 1, and the seconds so far.
 *
 * Throws `Refused` where there is no microphone, or it was not allowed.
 */
export async function record(onHeard: (level: number, seconds: number) => void): Promise<Recorder> {
  const stream = await microphone()
  const context = new AudioContext()
  await context.audioWorklet.addModule(worklet)
  const source = context.createMediaStreamSource(stream)
  const node = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 })
  const chunks: Int16Array[] = []
  let length = 0
  let loudest = 0
  let counted = 0
  node.port.onmessage = ({ data }: MessageEvent<Float32Array>) => {
    const samples = new Int16Array(data.length)
    for (let i = 0; i < data.length; i++) {
      const sample = Math.max(-1, Math.min(1, data[i] as number))
      samples[i] = Math.round(sample * 32_767)
      loudest = Math.max(loudest, Math.abs(sample))
    }
    chunks.push(samples)
    length += samples.length
    counted += samples.length
    if (counted >= context.sampleRate / 50) {
      onHeard(loudest, length / context.sampleRate)
      loudest = 0
      counted = 0
    }
  }
  source.connect(node)
  return {
    stop: () => {
      const sound = new Sound()
      for (const chunk of chunks) sound.append(chunk)
      node.port.onmessage = null
      source.disconnect()
      for (const track of stream.getTracks()) track.stop()
      if (context.state !== "closed") void context.close()
      return { samples: sound.samples(), sampleRate: context.sampleRate }
    },
  }
}

async function microphone(): Promise<MediaStream> {
  const obstacle = whyNoMicrophone()
  if (obstacle) throw new Refused(obstacle)
  try {
    // What calls need would change the very voice: gates, levelling, and echoes taken out of it.
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false }
    return await navigator.mediaDevices.getUserMedia({ audio })
  } catch (error) {
    const said: Record<string, string> = {
      NotAllowedError: "The microphone was not allowed. Allow it for this page in the browser, then try again.",
      NotFoundError: "No microphone was found. Connect one, then try again.",
      NotReadableError: "The microphone is in use by another program.",
    }
    throw new Refused(said[(error as Error).name] ?? `The microphone could not be opened: ${(error as Error).message}`)
  }
}

/** Samples from one second to another. */
export function trimmed({ samples, sampleRate }: Recording, fromS: number, toS: number): Recording {
  return { samples: samples.slice(Math.round(fromS * sampleRate), Math.round(toS * sampleRate)), sampleRate }
}

/** Below this share of the loudest, 20 ms are taken for silence: -34 dB. */
const QUIET = 0.02
const MARGIN_S = 0.15

/** Where the sound of a recording begins and ends, in seconds, with a little of the quiet around it. */
export function soundingPart(peaks: readonly number[], peakS: number): { fromS: number; toS: number } {
  const loudest = Math.max(...peaks, 0)
  const sounding = (peak: number) => peak > loudest * QUIET
  const first = peaks.findIndex(sounding)
  const last = peaks.findLastIndex(sounding)
  const whole = peaks.length * peakS
  if (first < 0) return { fromS: 0, toS: whole }
  return { fromS: Math.max(0, first * peakS - MARGIN_S), toS: Math.min(whole, (last + 1) * peakS + MARGIN_S) }
}
