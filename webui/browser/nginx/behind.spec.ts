// The page as nginx serves it in production: files from its disk, everything else from the balancer behind it.
import { readFileSync } from "node:fs"
import { expect, test } from "@playwright/test"
import { expectQuiet, watch } from "../fleet"
import { expectWhole, heardSamples, recordOutput } from "../heard"
import { kept } from "../kept"

/** The site, and a recording, from whoever started both. */
const { SITE = "", RECORDING = "" } = process.env

test.use({ bypassCSP: true }) // for the recorder of what is heard

test("the page comes from the disk, speaks without a gap, takes recordings and drains", async ({ page, request }) => {
  const watched = watch(page)
  await recordOutput(page)
  const fromDisk: boolean[] = []
  page.on("response", (answer) => {
    // What has passed the balancer bears the id that it gave.
    if (answer.url().includes("/ui/assets/")) fromDisk.push(!("x-request-id" in answer.headers()))
  })
  await page.goto(SITE)
  const text =
    "What is spoken behind nginx is heard as it was spoken. What is spoken behind nginx is heard as it was spoken."
  await page.getByLabel("Text to speak").fill(text)
  await page.getByLabel("Seed", { exact: true }).fill("7")
  await page.keyboard.press("Control+Enter")
  await expect(page.getByRole("article", { name: /^Take: / })).toBeVisible()
  const sound = page.getByRole("region", { name: "Sound" })
  await expect(sound.getByRole("button", { name: "Play", exact: true })).toBeVisible({ timeout: 20_000 })
  const sent = await kept(page)
  expect(sent.length).toBeGreaterThan(24_000)
  const again = await request.post(`${SITE}/synthesize`, { data: { text, format: "pcm", seed: 7 } })
  expect((await again.body()).equals(Buffer.from(sent.buffer))).toBe(true)
  expectWhole(await heardSamples(page), sent)
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
