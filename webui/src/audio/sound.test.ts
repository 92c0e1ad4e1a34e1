import { expect, it } from "vitest"
import { soundingPart } from "./recorder"
import { outline, PEAK_SPAN, Sound, wavOf } from "./sound"

it("keeps the samples and the loudest of each 20 ms, however they come", () => {
  const samples = Int16Array.from({ length: PEAK_SPAN * 2 + 10 }, (_, i) =>
    i === 5 ? -32_768 : i < PEAK_SPAN ? 1 : 16_384,
  )
  for (const cut of [1, 100, samples.length]) {
    const sound = new Sound()
    for (let at = 0; at < samples.length; at += cut) sound.append(samples.slice(at, at + cut))
    sound.finish()
    expect(sound.peaks).toEqual([1, 0.5, 0.5])
    expect(sound.samples()).toEqual(samples)
    expect(sound.seconds).toBeCloseTo(samples.length / 24_000)
  }
})

it("draws an outline of any number of values from any number of peaks", () => {
  expect(outline([0.1, 0.9, 0.2, 0.3], 2)).toEqual([0.9, 0.3])
  expect(outline([0.5], 3)).toEqual([0.5, 0.5, 0.5])
  expect(outline([], 2)).toEqual([0, 0])
})

it("writes a WAV file whose header tells its length", async () => {
  const file = new DataView(await wavOf(Int16Array.of(1, -2, 3), 48_000).arrayBuffer())
  expect([file.byteLength, file.getUint32(4, true), file.getUint32(24, true), file.getUint32(40, true)]).toEqual([
    50, 42, 48_000, 6,
  ])
  expect([44, 46, 48].map((at) => file.getInt16(at, true))).toEqual([1, -2, 3])
})

it("finds where a recording sounds, with a little around it", () => {
  const quiet = Array<number>(50).fill(0.001)
  const loud = Array<number>(100).fill(0.5)
  const { fromS, toS } = soundingPart([...quiet, ...loud, ...quiet], 0.02)
  expect([fromS, toS]).toEqual([expect.closeTo(0.85), expect.closeTo(3.15)])
  expect(soundingPart([0, 0, 0], 0.02)).toEqual({ fromS: 0, toS: 0.06 })
})
