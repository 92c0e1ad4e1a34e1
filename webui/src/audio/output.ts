// Where sound leaves the page: an audio worklet, or scheduled buffers where the browser offers none.
import { SAMPLE_RATE } from "~/api/types"
import worklet from "./player.worklet.ts?worker&url"
import { obey, type PlayerCommand, type PlayerReport } from "./playerCommands"
import { SampleQueue } from "./sampleQueue"

export interface Output {
  /** Obeys all of them before it reports: nobody is told of what holds between two. */
  send: (commands: readonly PlayerCommand[]) => void
}

/** The context that all sound of the page is played in. Samples reach it at its own rate, so nothing resamples them. */
let context: AudioContext | null = null

/** To be called from a click or a key: browsers let no page sound before one. */
export function awakeContext(): AudioContext {
  context ??= new AudioContext({ sampleRate: SAMPLE_RATE, latencyHint: "interactive" })
  if (context.state !== "running") void context.resume()
  return context
}

export async function openOutput(onReport: (report: PlayerReport) => void): Promise<Output> {
  const context = awakeContext()
  // Worklets exist in secure contexts only: https, or this machine itself. Its file may be out of reach, too.
  if (!context.audioWorklet) return scheduledOutput(context, onReport)
  return await workletOutput(context, onReport).catch(() => scheduledOutput(context, onReport))
}

async function workletOutput(context: AudioContext, onReport: (report: PlayerReport) => void): Promise<Output> {
  await context.audioWorklet.addModule(worklet)
  const node = new AudioWorkletNode(context, "take-player", {
    numberOfInputs: 0,
    outputChannelCount: [1],
  })
  node.port.onmessage = ({ data }: MessageEvent<PlayerReport>) => onReport(data)
  node.connect(context.destination)
  return { send: (commands) => node.port.postMessage(commands) }
}

/** Seconds of sound that are scheduled ahead; what is heard lags a pause by as much. */
const AHEAD_S = 0.2
const BLOCK = SAMPLE_RATE / 20
const TICK_MS = 25

function scheduledOutput(context: AudioContext, onReport: (report: PlayerReport) => void): Output {
  let queue = new SampleQueue()
  let next = 0
  let timer: ReturnType<typeof setInterval> | undefined

  function tick() {
    // On whole samples: what begins between two of them is interpolated.
    next = Math.max(next, Math.ceil((context.currentTime + 0.02) * SAMPLE_RATE) / SAMPLE_RATE)
    while (next < context.currentTime + AHEAD_S) {
      const buffer = context.createBuffer(1, BLOCK, SAMPLE_RATE)
      if (!queue.pull(buffer.getChannelData(0))) break
      const source = new AudioBufferSourceNode(context, { buffer })
      source.connect(context.destination)
      source.start(next)
      next = Math.round(next * SAMPLE_RATE + BLOCK) / SAMPLE_RATE
    }
    const { position, playing, waiting, underruns, ended } = queue
    if (!playing) {
      clearInterval(timer)
      timer = undefined
    }
    onReport({ position, playing, waiting, underruns, ended })
  }

  return {
    send: (commands) => {
      for (const command of commands) queue = obey(queue, command)
      if (queue.playing) timer ??= setInterval(tick, TICK_MS)
      if (commands.some((command) => command.do !== "append")) tick()
    },
  }
}
