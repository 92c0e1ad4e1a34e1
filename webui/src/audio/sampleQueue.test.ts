import { describe, expect, it } from "vitest"
import { obey, type PlayerCommand } from "./playerCommands"
import { RAMP, SampleQueue } from "./sampleQueue"

const QUANTUM = 128

/** A tone without a zero in it, so that silence is told from sound. */
function tone(length: number, from = 0): Int16Array {
  return Int16Array.from({ length }, (_, i) => 8_000 + Math.round(4_000 * Math.sin((from + i) / 10)))
}

function pulled(queue: SampleQueue, quanta: number): Float32Array {
  const heard = new Float32Array(quanta * QUANTUM)
  for (let i = 0; i < quanta; i++) queue.pull(heard.subarray(i * QUANTUM, (i + 1) * QUANTUM))
  return heard
}

function steepest(samples: Float32Array): number {
  let most = 0
  for (let i = 1; i < samples.length; i++) most = Math.max(most, Math.abs((samples[i] ?? 0) - (samples[i - 1] ?? 0)))
  return most
}

/** A fall of a full tone over the ramp, and the tone's own steps. */
const SMOOTH = 12_000 / 32_768 / RAMP + 500 / 32_768

function playing(samples: Int16Array, whole = true): SampleQueue {
  const queue = new SampleQueue()
  queue.append(samples)
  if (whole) queue.finish()
  queue.play()
  return queue
}

describe("a queue of samples", () => {
  it("gives every sample once and in order, however they were cut", () => {
    const sent = tone(5_000)
    for (const cut of [1, 7, 128, 1_000, 5_000]) {
      const queue = new SampleQueue()
      queue.play()
      for (let at = 0; at < sent.length; at += cut) queue.append(sent.slice(at, at + cut))
      queue.finish()
      const heard = pulled(queue, 40)
      for (let i = RAMP; i < sent.length; i++) expect(heard[i]).toBeCloseTo((sent[i] ?? 0) / 32_768, 6)
      expect(queue.ended).toBe(true)
      expect(queue.underruns).toBe(0)
    }
  })

  it("is silent until it is to be heard, and waits for its first samples", () => {
    const queue = new SampleQueue()
    queue.append(tone(2_000))
    expect(pulled(queue, 3).every((sample) => sample === 0)).toBe(true)
    expect(queue.position).toBe(0)
    const early = new SampleQueue()
    early.play()
    expect(pulled(early, 3).every((sample) => sample === 0)).toBe(true)
    expect([early.waiting, early.underruns]).toEqual([true, 0])
  })

  it("falls and rises again without a click when it is paused", () => {
    const queue = playing(tone(20_000))
    const heard = [pulled(queue, 4)]
    queue.pause()
    heard.push(pulled(queue, 4))
    const paused = queue.position
    expect(heard[1]?.slice(QUANTUM).every((sample) => sample === 0)).toBe(true)
    queue.play()
    heard.push(pulled(queue, 4))
    expect(queue.position).toBe(paused + 4 * QUANTUM)
    expect(steepest(Float32Array.from(heard.flatMap((part) => [...part])))).toBeLessThan(SMOOTH)
  })

  it("goes to another place without a click", () => {
    const queue = playing(tone(20_000))
    const before = pulled(queue, 4)
    queue.seek(12_345)
    const after = pulled(queue, 4)
    expect(queue.position).toBe(12_345 + 3 * QUANTUM)
    expect(steepest(Float32Array.from([...before, ...after]))).toBeLessThan(SMOOTH)
    queue.seek(1e9)
    pulled(queue, 2)
    expect(queue.ended).toBe(true)
  })

  it("fades out where the sound runs dry, and goes on once there is enough", () => {
    const queue = playing(tone(1_000), false)
    const heard = [pulled(queue, 12)]
    expect([queue.waiting, queue.underruns]).toEqual([true, 1])
    const dried = queue.position
    queue.append(tone(2_000, 1_000))
    heard.push(pulled(queue, 4))
    expect(queue.position).toBe(dried) // too little to go on with
    queue.append(tone(4_000, 3_000))
    heard.push(pulled(queue, 8))
    expect(queue.position).toBe(dried + 8 * QUANTUM)
    expect(queue.waiting).toBe(false)
    expect(steepest(Float32Array.from(heard.flatMap((part) => [...part])))).toBeLessThan(SMOOTH)
  })

  it("plays a short rest at once when nothing more comes", () => {
    const queue = playing(tone(600), false)
    pulled(queue, 8)
    queue.append(tone(100, 600))
    queue.finish()
    pulled(queue, 8)
    expect([queue.ended, queue.playing]).toEqual([true, false])
  })

  it("begins anew after its end", () => {
    const queue = playing(tone(1_000))
    pulled(queue, 10)
    queue.seek(0)
    queue.play()
    const again = pulled(queue, 4)
    expect(again[300]).toBeCloseTo((tone(1_000)[300] ?? 0) / 32_768, 6)
  })

  it("obeys what it is told in order, and begins anew with another take", () => {
    const told: PlayerCommand[] = [
      { do: "load" },
      { do: "append", samples: tone(2_000) },
      { do: "seek", position: 700 },
      { do: "play" },
    ]
    const before = playing(tone(500))
    const queue = told.reduce(obey, before)
    expect(queue).not.toBe(before)
    expect([queue.playing, queue.position, queue.length]).toEqual([true, 700, 2_000])
    expect(obey(queue, { do: "pause" }).playing).toBe(false)
  })
})
