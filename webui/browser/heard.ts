// What really leaves the page's audio graph, sample by sample.
import { expect, type Page } from "@playwright/test"

/** Runs on the audio thread, which no busy page holds up: every quantum is handed on, 32 at a time. */
const RECORDER = `
registerProcessor("recorder", class extends AudioWorkletProcessor {
  constructor() {
    super()
    this.held = new Float32Array(4096)
    this.at = 0
  }
  process([channels]) {
    if (channels[0]) this.held.set(channels[0], this.at)
    else this.held.fill(0, this.at, this.at + 128)
    this.at += 128
    if (this.at === this.held.length) {
      this.port.postMessage(this.held.slice())
      this.at = 0
    }
    return true
  }
})`

/**
 * To be called before the page is opened: whatever is connected to the output is recorded on its way, too. The page's policy
 * would refuse the recorder: it wants `test.use({ bypassCSP: true })`.
 */
export async function recordOutput(page: Page): Promise<void> {
  await page.addInitScript((source) => {
    const heard: Float32Array[] = []
    Object.assign(window, { heard })
    const addModule = AudioWorklet.prototype.addModule
    AudioWorklet.prototype.addModule = async function (this: AudioWorklet, ...module) {
      await addModule.call(this, URL.createObjectURL(new Blob([source], { type: "text/javascript" })))
      await addModule.apply(this, module)
    }
    const connect = AudioNode.prototype.connect
    const recorders = new WeakMap<BaseAudioContext, AudioNode>()
    // biome-ignore lint/suspicious/noExplicitAny: connect has two shapes
    AudioNode.prototype.connect = function (this: AudioNode, ...to: any[]) {
      if (to[0] === this.context.destination) {
        let recorder = recorders.get(this.context)
        if (!recorder) {
          const node = new AudioWorkletNode(this.context, "recorder", { channelCount: 1, channelCountMode: "explicit" })
          node.port.onmessage = ({ data }) => heard.push(data)
          connect.call(node, this.context.destination as never) // or it would not be asked to process
          recorders.set(this.context, node)
          recorder = node
        }
        connect.call(this, recorder as never)
      }
      return connect.apply(this, to as never) as never
    } as typeof connect
  }, RECORDER)
}

export async function heardSamples(page: Page): Promise<Float32Array> {
  await page.waitForTimeout(500) // more than what the recorder holds
  const parts = await page.evaluate(() =>
    (window as unknown as { heard: Float32Array[] }).heard.map((part) => Array.from(part)),
  )
  return Float32Array.from(parts.flat())
}

/** Where in `heard` the sound begins, and how many of its samples are not as they were sent. */
export interface Match {
  at: number
  wrong: number
}

const SEARCHED = 2_400
/** A sample is what was sent when it is within one step of 16 bits. */
const EQUAL = 1.5 / 32_768

/** Finds `sent`, 16-bit samples, in `heard` by its loudest stretch and compares all of it. */
export function match(heard: Float32Array, sent: Int16Array): Match | null {
  let loudest = 0
  for (let i = 0; i < sent.length; i++) if (Math.abs(sent[i] ?? 0) > Math.abs(sent[loudest] ?? 0)) loudest = i
  const from = Math.max(0, Math.min(loudest - SEARCHED / 2, sent.length - SEARCHED))
  const wanted = Float32Array.from(sent.subarray(from, from + SEARCHED), (sample) => sample / 32_768)
  let best: Match | null = null
  for (let at = 0; at + wanted.length <= heard.length; at++) {
    const agrees = [0, 1, 2, 300, 1200, wanted.length - 1].every(
      (i) => Math.abs((heard[at + i] ?? 0) - (wanted[i] ?? 0)) < EQUAL,
    )
    if (!agrees) continue
    const start = at - from
    const wrong = wrongSamples(heard, sent, start)
    if (best === null || wrong < best.wrong) best = { at: start, wrong }
  }
  return best
}

/** The page lets sound rise over 5 ms where it begins; the sound's own beginning is quiet. */
const RISE = 120

function wrongSamples(heard: Float32Array, sent: Int16Array, start: number): number {
  let wrong = 0
  for (let i = RISE; i < sent.length; i++) {
    if (Math.abs((heard[start + i] ?? Number.NaN) - (sent[i] ?? 0) / 32_768) < EQUAL) continue
    wrong += 1
  }
  return wrong
}

/** Everything was heard as it was sent: no gap, no click, nothing twice and nothing left out. */
export function expectWhole(heard: Float32Array, sent: Int16Array): void {
  const found = match(heard, sent)
  const loudest = heard.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0)
  const sounding = heard.reduce((count, sample) => count + Number(sample !== 0), 0)
  const told = `${sent.length} samples were sent; heard were ${heard.length}, ${sounding} of them not zero, the loudest ${loudest}`
  expect(found, `the sound is not among what was heard: ${told}`).not.toBeNull()
  expect(found?.wrong, `samples that were not heard as they were sent: ${told}`).toBe(0)
}
