// Measures the page in Chromium against a running fleet, and the fleet itself beside it, in turns:
// `node bench.mjs http://127.0.0.1:6095 [RESULT.json]`.
import { execSync } from "node:child_process"
import { writeFileSync } from "node:fs"
import { cpus, platform, release } from "node:os"
import { chromium } from "@playwright/test"

const [url = "http://127.0.0.1:6095", result] = process.argv.slice(2)
const TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on."
const ROUNDS = 20

const middle = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]
const spread = (values) => ({
  min: Math.min(...values),
  median: middle(values),
  max: Math.max(...values),
})
const rounded = (values) =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Math.round(value * 10) / 10]))

/** Milliseconds from the request to the first byte of sound. */
async function direct() {
  const began = performance.now()
  const answer = await fetch(`${url}/synthesize/stream`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ text: TEXT, format: "pcm", stream_format: "audio" }),
  })
  const reader = answer.body.getReader()
  await reader.read()
  const took = performance.now() - began
  while (!(await reader.read()).done);
  return took
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
})

/** A first visit: what is fetched until a text can be spoken, and how long that takes. */
async function visit() {
  const page = await (await browser.newContext()).newPage()
  const began = performance.now()
  await page.goto(url)
  await page.getByRole("button", { name: "Generate" }).waitFor()
  const usableMs = performance.now() - began
  const bytes = await page.evaluate(() =>
    [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
      .filter(({ name }) => new URL(name).pathname === "/" || name.includes("/ui/"))
      .reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0),
  )
  return { page, usableMs, bytes }
}

const visits = []
for (let round = 0; round < 5; round++) visits.push(await visit())
const { page } = visits.at(-1)
await page.getByLabel("Text to speak").fill(TEXT)
const [inPage, bare] = [[], []]
for (let round = 0; round < ROUNDS; round++) {
  bare.push(await direct())
  await page.keyboard.press("Control+Enter")
  const takes = page.getByRole("article", { name: /^Take: / })
  await takes.first().waitFor()
  await page.getByRole("button", { name: "Generate" }).waitFor()
  await page.waitForTimeout(300)
  const told = await page.evaluate(
    () =>
      new Promise((resolve) => {
        const opening = indexedDB.open("chatterbox-fleet")
        opening.onsuccess = () => {
          const asked = opening.result.transaction("takes").objectStore("takes").getAll()
          asked.onsuccess = () => {
            opening.result.close()
            resolve(asked.result.toSorted((a, b) => b.madeAt - a.madeAt)[0].firstSoundS * 1000)
          }
        }
      }),
  )
  inPage.push(told)
}
const version = browser.version()
await browser.close()

const measured = {
  date: new Date().toISOString().slice(0, 10),
  command: `node bench.mjs ${url}`,
  commit: execSync("git describe --always --dirty", { encoding: "utf8" }).trim(),
  hardware: `${cpus()[0].model}, ${cpus().length} cores`,
  system: `${platform()} ${release()}`,
  versions: { chromium: version, node: process.version },
  health: await (await fetch(`${url}/health`)).json(),
  first_visit: {
    rounds: visits.length,
    bytes: visits.at(-1).bytes,
    usable_ms: rounded(spread(visits.map(({ usableMs }) => usableMs))),
  },
  first_sound_ms: { rounds: ROUNDS, in_the_page: rounded(spread(inPage)), bare_stream: rounded(spread(bare)) },
}
console.log(JSON.stringify(measured, null, 1))
if (result) writeFileSync(result, `${JSON.stringify(measured, null, 1)}\n`)
