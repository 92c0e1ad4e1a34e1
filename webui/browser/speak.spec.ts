// Speak: from a text to its sound, heard as it was sent, and to what was spoken before.
import { readFileSync } from "node:fs"
import type { Page } from "@playwright/test"
import { look } from "./checks"
import { expect, test } from "./fleet"
import { expectWhole, heardSamples, match, recordOutput } from "./heard"
import { kept, storedTakes } from "./kept"

const SENTENCE = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. "
const LONG = SENTENCE.repeat(140)

const text = (page: Page) => page.getByLabel("Text to speak")
const sound = (page: Page) => page.getByRole("region", { name: "Sound" })
const takes = (page: Page) => page.getByRole("article", { name: /^Take: / })

async function speak(page: Page, words: string): Promise<void> {
  const before = await takes(page).count()
  await text(page).fill(words)
  await page.keyboard.press("Control+Enter")
  await expect(takes(page)).toHaveCount(before + 1, { timeout: 30_000 })
}

test.describe("what is heard", () => {
  test.use({ bypassCSP: true }) // for the recorder of what is heard

  test("what is heard is what was spoken, every sample of it, from the first chunk on", async ({ page, fleet }) => {
    await recordOutput(page)
    await page.goto(fleet.url)
    await page.getByLabel("Seed", { exact: true }).fill("7")
    await speak(page, SENTENCE.repeat(2))
    await expect(sound(page).getByText("First sound")).toBeVisible()
    await expect(sound(page).getByText("Real-time factor")).toBeVisible()
    await expect(sound(page).getByRole("button", { name: "Play", exact: true })).toBeVisible({ timeout: 20_000 })
    await expect(sound(page).getByText("Ran dry")).toHaveCount(0)
    const sent = await kept(page)
    expect(sent.length).toBeGreaterThan(4 * 24_000)
    const told = await fleet.speech({ text: SENTENCE.repeat(2).trim(), format: "pcm", seed: 7 })
    const bare = await fleet.speech({ text: SENTENCE.repeat(2), format: "pcm", seed: 7 })
    expect([told, bare].some((one) => one.equals(Buffer.from(sent.buffer)))).toBe(true)
    const heard = await heardSamples(page)
    expectWhole(heard, sent)
    // The measure itself finds a chunk that is left out, and one that comes twice.
    const at = match(heard, sent)?.at ?? 0
    const gap = [...heard.slice(0, at + 30_000), ...heard.slice(at + 31_000)]
    expect(match(Float32Array.from(gap), sent)?.wrong).toBeGreaterThan(1_000)
    const twice = [...heard.slice(0, at + 30_000), ...heard.slice(at + 29_000)]
    expect(match(Float32Array.from(twice), sent)?.wrong).toBeGreaterThan(1_000)
  })

  test("sound goes on where it was paused, and begins where it is sought, without a click", async ({ page, fleet }) => {
    await recordOutput(page)
    await page.goto(fleet.url)
    await speak(page, SENTENCE.repeat(3))
    await page.waitForTimeout(700)
    await sound(page).getByRole("button", { name: "Pause" }).click()
    const position = page.getByRole("slider", { name: "Position in the sound" })
    await page.waitForTimeout(200)
    const paused = Number(await position.getAttribute("aria-valuenow"))
    await page.waitForTimeout(400)
    expect(Number(await position.getAttribute("aria-valuenow"))).toBe(paused)
    await sound(page).getByRole("button", { name: "Play", exact: true }).click()
    await position.press("End")
    await position.press("ArrowLeft")
    await expect(sound(page).getByRole("button", { name: "Play", exact: true })).toBeVisible({ timeout: 10_000 })
    const sent = await kept(page)
    const heard = await heardSamples(page)
    // No step between two samples that is bigger than the sound's own biggest.
    const biggest = (samples: ArrayLike<number>, scale: number) => {
      let most = 0
      for (let i = 1; i < samples.length; i++)
        most = Math.max(most, Math.abs((samples[i] ?? 0) - (samples[i - 1] ?? 0)) / scale)
      return most
    }
    expect(biggest(heard, 1)).toBeLessThanOrEqual(biggest(sent, 32_768) + 1e-3)
  })
})

test("a long text shows its segments, and Escape stops it", async ({ opened: page }) => {
  await text(page).fill(LONG)
  await page.keyboard.press("Control+Enter")
  await expect(page.getByText(/Segment \d+ of \d+/)).toBeVisible()
  await page.keyboard.press("Escape")
  await expect(page.getByText("Stopped. What had arrived is kept.")).toBeVisible()
  await expect(page.getByRole("button", { name: "Generate" })).toBeEnabled()
  const spoken = await page.getByRole("progressbar", { name: "Segments spoken" }).evaluate((bar) => {
    const { value, max } = bar as HTMLProgressElement
    return value / max
  })
  expect(spoken).toBeLessThan(1)
})

test("a segment can be gone to, and the one that is heard is marked", async ({ opened: page }) => {
  await speak(page, SENTENCE.repeat(12))
  const segments = page.getByRole("list", { name: "Segments" }).getByRole("button")
  expect(await segments.count()).toBeGreaterThan(3)
  await segments.nth(2).click()
  await expect(segments.nth(2)).toHaveAttribute("aria-current", "true")
  await page.keyboard.press("Escape")
})

test("a worker that dies while the page plays costs the rest of the sound, which is then spoken by another", async ({
  opened: page,
  fleet,
}) => {
  await text(page).fill(LONG)
  await page.keyboard.press("Control+Enter")
  const worker = sound(page).getByText("Worker").locator("xpath=following-sibling::dd")
  await fleet.kill((await worker.textContent()) ?? "")
  const failure = sound(page).getByRole("alert")
  await expect(failure).toContainText("The sound was cut short")
  await expect(failure).toContainText(/Request id [0-9a-f]{32}/)
  await expect(sound(page).getByRole("button", { name: "Pause" })).toBeVisible() // what had arrived plays on
  const before = await takes(page).count()
  await failure.getByRole("button", { name: "Speak the rest" }).click()
  await expect(takes(page)).toHaveCount(before + 1, { timeout: 30_000 })
  await expect(sound(page).getByRole("alert")).toHaveCount(0)
  await expect.poll(async () => (await fleet.stats()).totals.ready, { timeout: 30_000 }).toBe(2)
})

test("voices and emotions are found by search and heard before they are chosen", async ({ opened: page, fleet }) => {
  const voice = page.getByRole("combobox", { name: "Voice" })
  await voice.fill("unhurried")
  await page.getByRole("option", { name: /Narrator/ }).click()
  await expect(voice).toHaveValue("Narrator")
  await page.getByRole("button", { name: "Play a preview of Narrator" }).click()
  await expect(page.getByRole("button", { name: "Stop a preview of Narrator" })).toBeVisible()
  await expect(page.getByRole("button", { name: "Play a preview of Narrator" })).toBeVisible({ timeout: 15_000 })
  const emotion = page.getByRole("combobox", { name: "Emotion" })
  await emotion.fill("nothing like it")
  await expect(page.getByText("Nothing is called “nothing like it”.")).toBeVisible()
  await emotion.fill("expr")
  await emotion.press("ArrowDown")
  await emotion.press("Enter")
  await expect(emotion).toHaveValue("expressive")
  await speak(page, SENTENCE)
  await expect(sound(page)).toContainText("Narrator")
  await expect(sound(page)).toContainText("expressive")
  await expect(page.getByLabel("Expressiveness, exactly")).toHaveValue("0.8") // the emotion's own
  expect((await fleet.stats()).totals.failures).toBeGreaterThanOrEqual(0)
})

test("what the engine does not honour cannot be set, and why is said", async ({ opened: page }) => {
  await expect(page.getByRole("slider", { name: "Expressiveness" })).toBeEnabled()
  const guidance = page.getByRole("slider", { name: "Guidance" })
  await expect(guidance).toBeDisabled()
  await expect(guidance).toHaveAccessibleDescription(/does not use this/)
  await page.getByText("Fine tuning").click()
  await expect(page.getByRole("slider", { name: /top-p/ })).toBeDisabled()
})

test("a locked seed and the same settings make the same sound again", async ({ opened: page }) => {
  await page.getByRole("slider", { name: "Speed" }).press("ArrowRight")
  await page.getByRole("slider", { name: "Expressiveness" }).press("ArrowRight")
  await speak(page, SENTENCE)
  await expect.poll(() => storedTakes(page)).toBe(1)
  const first = await kept(page)
  await page.getByRole("button", { name: "Lock this seed" }).click()
  await speak(page, SENTENCE)
  await expect.poll(async () => Buffer.from((await kept(page)).buffer).equals(Buffer.from(first.buffer))).toBe(true)
  const seeds = await page
    .getByRole("article")
    .getByText(/seed \d+/)
    .allInnerTexts()
  expect(seeds[0]?.match(/seed \d+/)?.[0]).toBe(seeds[1]?.match(/seed \d+/)?.[0])
})

test("a take is downloaded in the format that is chosen", async ({ opened: page }) => {
  await speak(page, SENTENCE)
  const starts: Record<string, (file: Buffer) => boolean> = {
    wav: (file) => file.toString("latin1", 0, 4) === "RIFF" && file.readUInt32LE(40) === file.length - 44,
    mp3: (file) => file[0] === 0xff && file.includes("Info"),
    flac: (file) => file.toString("latin1", 0, 4) === "fLaC",
    opus: (file) => file.toString("latin1", 0, 4) === "OggS",
    aac: (file) => file[0] === 0xff,
    pcm: (file) => file.length > 48_000 && file.length % 2 === 0,
  }
  for (const [format, isIt] of Object.entries(starts)) {
    await page.getByLabel("Format of the download").selectOption(format)
    const downloading = page.waitForEvent("download")
    await sound(page)
      .getByRole("button", { name: /^Download/ })
      .click()
    const download = await downloading
    expect(download.suggestedFilename()).toMatch(/^the-quick-brown-fox-.*\.(wav|mp3|flac|ogg|aac|pcm)$/)
    expect(isIt(readFileSync(await download.path())), format).toBe(true)
  }
})

test("takes outlive the page, are heard again, compared, used anew and deleted", async ({ opened: page }) => {
  await speak(page, "The first of two takes.")
  await page.getByRole("slider", { name: "Speed" }).press("ArrowRight")
  await speak(page, "The second of two takes.")
  await expect.poll(() => storedTakes(page)).toBe(2)
  await page.reload()
  await expect(takes(page)).toHaveCount(2)
  const [second, first] = [takes(page).nth(0), takes(page).nth(1)]
  await first.getByRole("button", { name: "Play" }).click()
  await expect(first.getByRole("button", { name: "Pause" })).toBeVisible()
  await first.getByRole("button", { name: "Compare as A" }).click()
  await second.getByRole("button", { name: "Compare as B" }).click()
  const comparison = page.getByRole("region", { name: "Comparison" })
  await expect(comparison.getByRole("row", { name: /speed/ })).toBeVisible()
  await comparison.getByRole("button", { name: "Go on with B" }).click()
  await expect(second.getByRole("button", { name: "Pause" })).toBeVisible()
  await comparison.getByRole("button", { name: "End the comparison" }).click()
  await page.getByRole("button", { name: "All settings back to their defaults" }).click()
  await second.getByRole("button", { name: "Use these settings" }).click()
  await expect(page.getByLabel("Speed, exactly")).not.toHaveValue("1")
  await expect(page.getByRole("button", { name: "The seed is locked: the same sound again" })).toBeVisible()
  await first.getByRole("button", { name: "Delete" }).click()
  await expect(takes(page)).toHaveCount(1)
  await page.getByRole("button", { name: "Undo" }).click()
  await expect(takes(page)).toHaveCount(2)
  await takes(page).nth(1).getByRole("button", { name: "Delete" }).click()
  await page.reload() // which is not a way to bring it back
  await expect(takes(page)).toHaveCount(1)
  await expect(takes(page)).toHaveAccessibleName(/second/)
})

test("a text comes from a file, and what is none is refused in plain words", async ({ opened: page, fleet }) => {
  const drop = async (name: string, content: number[]) => {
    const files = await page.evaluateHandle(
      ([called, bytes]) => {
        const transfer = new DataTransfer()
        transfer.items.add(new File([Uint8Array.from(bytes as number[])], called as string))
        return transfer
      },
      [name, content],
    )
    await text(page).dispatchEvent("dragover", { dataTransfer: files })
    await text(page).dispatchEvent("drop", { dataTransfer: files })
  }
  await drop("story.txt", [...Buffer.from("\ufeffOnce upon a time.\r\nThere was a text.")])
  await expect(text(page)).toHaveValue("Once upon a time.\nThere was a text.")
  await drop("picture.png", [0x89, 0x50, 0x4e, 0x47, 0xff, 0xfe, 0])
  await expect(page.getByRole("alert")).toContainText("picture.png is not plain text in UTF-8")
  await expect(text(page)).toHaveValue("Once upon a time.\nThere was a text.")
  const choosing = page.waitForEvent("filechooser")
  await page.getByRole("button", { name: "Open a file" }).click()
  await (await choosing).setFiles(fleet.file("other.txt", "Another text."))
  await expect(text(page)).toHaveValue("Another text.")
  await page.getByRole("button", { name: "Insert a pause" }).click()
  await expect(text(page)).toHaveValue("Another text.[pause 0.5s] ")
})

test("characters are counted, and too many or none are told before they are sent", async ({ opened: page }) => {
  await text(page).fill("a\u{1f600}b")
  await expect(page.locator("#text-count")).toHaveText("3 of 10,000 characters")
  await text(page).fill("a".repeat(10_001))
  await expect(page.getByText("The text is 1 characters too long")).toBeVisible()
  await expect(page.getByRole("button", { name: "Generate" })).toBeDisabled()
  await text(page).fill("  ")
  await expect(page.getByRole("button", { name: "Generate" })).toBeDisabled()
  await text(page).fill("...")
  await page.keyboard.press("Control+Enter")
  await expect(sound(page).getByRole("alert")).toContainText("There is nothing to speak")
})

test("drafts are named, kept, exported and read in again", async ({ opened: page, fleet }) => {
  const menu = async (entry: string) => {
    await page.getByRole("button", { name: "Drafts" }).click()
    await page.getByRole("menuitem", { name: entry, exact: true }).click()
  }
  const draft = page.getByLabel("Draft", { exact: true })
  await menu("New draft")
  await menu("Rename")
  await page.getByLabel("The draft's name").fill("Chapter one")
  await page.keyboard.press("Enter")
  await text(page).fill("It was a dark night.")
  await page.reload()
  await expect(text(page)).toHaveValue("It was a dark night.")
  await expect(draft.getByRole("option", { selected: true })).toHaveText("Chapter one")
  await menu("Duplicate")
  await expect(draft.getByRole("option", { selected: true })).toHaveText("Chapter one 2")
  const downloading = page.waitForEvent("download")
  await menu("Export all drafts")
  const exported = readFileSync(await (await downloading).path())
  await menu("Delete")
  await expect(draft.getByRole("option")).toHaveCount(2)
  await page.getByRole("button", { name: "Undo" }).click()
  await expect(draft.getByRole("option")).toHaveCount(3)
  await page.getByTestId("drafts-file").setInputFiles(fleet.file("drafts.json", exported))
  await expect(draft.getByRole("option")).toHaveCount(6)
  await page.getByTestId("drafts-file").setInputFiles(fleet.file("broken.json", "{"))
  await expect(page.getByRole("alert")).toContainText("This file is not JSON")
  await expect(draft.getByRole("option")).toHaveCount(6)
})

test("the screen is accessible and looks as it should, empty and in use", async ({ opened: page }) => {
  await look(page, "speak-empty", "few")
  await speak(page, SENTENCE.repeat(8))
  await speak(page, "Another take.")
  await takes(page).nth(0).getByRole("button", { name: "Compare as A" }).click()
  await takes(page).nth(1).getByRole("button", { name: "Compare as B" }).click()
  await takes(page).nth(1).getByRole("button", { name: "Play" }).click()
  await page.getByText("Fine tuning").click()
  await look(page, "speak-used")
})
