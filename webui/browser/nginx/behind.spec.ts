// The page as nginx serves it in production: files from its disk, everything else from the balancer behind it.
import { readFileSync } from "node:fs"
import { expect, test } from "@playwright/test"
import { expectQuiet, watch } from "../fleet"
import { expectWhole, heardSamples, recordOutput } from "../heard"

/** The site, and a recording, from whoever started both. */
const { SITE = "", RECORDING = "" } = process.env

test.use({ bypassCSP: true }) // for the recorder of what is heard

test("the page comes from the disk, speaks without a gap, takes recordings and drains", async ({ page }) => {
  const watched = watch(page)
  await recordOutput(page)
  const fromDisk: boolean[] = []
  page.on("response", (answer) => {
    // What has passed the balancer bears the id that it gave.
    if (answer.url().includes("/ui/assets/")) fromDisk.push(!("x-request-id" in answer.headers()))
  })
  await page.goto(SITE)
  await page.getByLabel("Text to speak").fill("What is spoken behind nginx is heard as it was spoken. ".repeat(2))
  let answered = ""
  page.on("response", async (answer) => {
    if (answer.url().endsWith("/synthesize/stream")) answered = await answer.text()
  })
  await page.keyboard.press("Control+Enter")
  await expect(page.getByRole("article", { name: /^Take: / })).toBeVisible()
  const sound = page.getByRole("region", { name: "Sound" })
  await expect(sound.getByRole("button", { name: "Play", exact: true })).toBeVisible({ timeout: 20_000 })
  const audio = [...answered.matchAll(/"audio":"([^"]*)"/g)].map(([, data]) => Buffer.from(data ?? "", "base64"))
  const bytes = Uint8Array.from(Buffer.concat(audio))
  expect(bytes.length).toBeGreaterThan(48_000)
  expectWhole(await heardSamples(page), new Int16Array(bytes.buffer))
  expect(fromDisk.length).toBeGreaterThan(1)
  expect(fromDisk.every(Boolean)).toBe(true)

  await page.getByRole("link", { name: "Voices" }).click()
  await page.getByRole("button", { name: "New voice" }).click()
  const file = { name: "large.wav", mimeType: "audio/wav", buffer: readFileSync(RECORDING) }
  expect(file.buffer.length).toBeGreaterThan(1_000_000) // more than nginx lets pass elsewhere
  await page.getByTestId("recordings").setInputFiles(file)
  await page.getByRole("button", { name: "Create the voice" }).click()
  await page.getByRole("button", { name: "Done" }).click()
  await expect(page.getByRole("article", { name: "Large" }).getByText("Ready")).toBeVisible()

  await page.getByRole("link", { name: "Fleet" }).click()
  await page.getByRole("button", { name: "Drain worker-0" }).first().click()
  await expect(page.getByRole("button", { name: "Resume worker-0" }).first()).toBeVisible()
  await page.getByRole("button", { name: "Resume worker-0" }).first().click()
  await expect(page.getByRole("button", { name: "Drain worker-0" }).first()).toBeVisible()
  expectQuiet(watched, SITE)
})
