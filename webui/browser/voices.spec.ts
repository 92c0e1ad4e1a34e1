// Voices: made of files and of the microphone, changed, chosen, and taken away with a way back.
import type { Page } from "@playwright/test"
import type { Voice } from "../src/api/types"
import { look } from "./checks"
import { expect, expectQuiet, type RunningFleet, test, watch } from "./fleet"

const SPOKEN = "Somebody speaks here for some seconds, clearly and without a hurry, so that a voice can be made of it."

const card = (page: Page, name: string) => page.getByRole("article", { name, exact: true })
const dialog = (page: Page) => page.getByRole("dialog")

async function voices(fleet: RunningFleet): Promise<Voice[]> {
  return (await fleet.json<{ voices: Voice[] }>("/voices?limit=1000")).voices
}

/** A voice made by the API, as another person would. */
async function made(fleet: RunningFleet, name: string): Promise<Voice> {
  const form = new FormData()
  form.append("name", name)
  const sound = await fleet.speech({ text: SPOKEN, voice: "tenor", format: "wav" })
  form.append("file", new Blob([Uint8Array.from(sound)]), `${name}.wav`)
  return await fleet.json("/voices", { method: "POST", body: form })
}

test.beforeEach(async ({ opened: page }) => {
  await page.getByRole("link", { name: "Voices" }).click()
  await expect(page.getByRole("heading", { name: "Voices", exact: true })).toBeVisible()
})

test("a recording that is dropped becomes a voice, with hints on its quality, that speaks", async ({
  opened: page,
  fleet,
}) => {
  const sound = await fleet.speech({ text: SPOKEN, voice: "soprano", format: "wav" })
  const files = await page.evaluateHandle(
    (bytes) => {
      const transfer = new DataTransfer()
      transfer.items.add(new File([Uint8Array.from(bytes)], "anna_of_the_harbour.wav", { type: "audio/wav" }))
      return transfer
    },
    [...sound],
  )
  const zone = page.getByRole("region", { name: "Voices", exact: true })
  await zone.dispatchEvent("dragenter", { dataTransfer: files })
  await expect(page.getByText("Drop recordings to make a voice of them")).toBeVisible()
  await zone.dispatchEvent("drop", { dataTransfer: files })
  const name = dialog(page).getByLabel("Name")
  await expect(name).toHaveValue("Anna of the harbour")
  await name.fill("Anna")
  await dialog(page).getByLabel("Language").fill("en-GB")
  await dialog(page).getByLabel("Aliases").fill("storyteller, ann")
  await dialog(page).getByRole("button", { name: "Create the voice" }).click()
  await expect(dialog(page).getByText(/LUFS/)).toBeVisible()
  await dialog(page).getByRole("button", { name: "Done" }).click()
  await expect(card(page, "Anna")).toContainText("British English")
  await expect(card(page, "Anna")).toContainText("Also storyteller, ann")
  await expect(card(page, "Anna").getByText("Ready")).toBeVisible()
  await card(page, "Anna").getByRole("button", { name: "Play Anna speaking" }).click()
  await expect(card(page, "Anna").getByRole("button", { name: "Stop Anna speaking" })).toBeVisible()
  await card(page, "Anna").getByText("Its recording").click()
  await card(page, "Anna")
    .getByRole("button", { name: /Play the recording anna_of_the_harbour.wav/ })
    .click()
  await expect(card(page, "Anna").getByRole("button", { name: /Stop the recording/ })).toBeVisible()
  await card(page, "Anna").getByRole("button", { name: "Speak with it" }).click()
  await expect(page.getByRole("combobox", { name: "Voice" })).toHaveValue("Anna")
})

test("what is no recording is refused, beside the field and before it is sent where that can be", async ({
  opened: page,
  fleet,
}) => {
  await page.getByRole("button", { name: "New voice" }).click()
  const picker = page.getByTestId("recordings")
  await picker.setInputFiles(fleet.file("letter.txt", "no sound"))
  await expect(dialog(page).getByRole("alert")).toContainText("letter.txt is no recording")
  await dialog(page).getByRole("button", { name: "Leave letter.txt out" }).click()
  await picker.setInputFiles(fleet.file("noise.wav", Buffer.from("no sound either")))
  await dialog(page).getByLabel("Name").fill("Noise")
  await dialog(page).getByRole("button", { name: "Create the voice" }).click()
  await expect(dialog(page).getByRole("alert")).toContainText(/Request id [0-9a-f]{32}/)
  await dialog(page).getByRole("button", { name: "Leave noise.wav out" }).click()
  await picker.setInputFiles(fleet.file("fine.wav", await fleet.speech({ text: SPOKEN, format: "wav" })))
  await made(fleet, "Taken")
  await dialog(page).getByLabel("Name").fill("taken")
  await dialog(page).getByRole("button", { name: "Create the voice" }).click()
  await expect(dialog(page).getByLabel("Name")).toHaveAccessibleDescription(/taken/)
  await page.keyboard.press("Escape")
  await expect(dialog(page)).toHaveCount(0)
  expect((await voices(fleet)).some(({ name }) => name === "Noise")).toBe(false)
})

test("a voice that is made elsewhere appears by itself; it is renamed, made the default and deleted", async ({
  opened: page,
  fleet,
}) => {
  await made(fleet, "Bruno")
  await made(fleet, "Benno")
  await expect(card(page, "Bruno")).toBeVisible()
  await card(page, "Bruno").getByRole("button", { name: "Edit Bruno" }).click()
  await dialog(page).getByLabel("Name").fill("Bruno the Elder")
  await dialog(page).getByLabel("Aliases").fill("benno")
  await dialog(page).getByRole("button", { name: "Save" }).click()
  await expect(dialog(page).getByLabel("Aliases")).toHaveAccessibleDescription(/benno/)
  await dialog(page).getByLabel("Aliases").fill("elder")
  await dialog(page).getByRole("button", { name: "Save" }).click()
  const elder = card(page, "Bruno the Elder")
  await expect(elder).toContainText("Also elder")
  await elder.getByRole("button", { name: "Make Bruno the Elder the default voice" }).click()
  await expect(elder.getByRole("button", { name: "Bruno the Elder is the default voice" })).toBeVisible()
  await elder.getByRole("button", { name: "Bruno the Elder is the default voice" }).click()
  await elder.getByRole("button", { name: "Delete Bruno the Elder" }).click()
  await expect(elder).toHaveCount(0)
  await page.getByRole("button", { name: "Undo" }).click()
  await expect(elder).toBeVisible()
  expect((await voices(fleet)).some(({ name }) => name === "Bruno the Elder")).toBe(true)
  await elder.getByRole("button", { name: "Delete Bruno the Elder" }).click()
  await page.getByRole("button", { name: "Dismiss" }).click() // which does it at once
  await expect.poll(async () => (await voices(fleet)).some(({ name }) => name === "Bruno the Elder")).toBe(false)
})

test("a deletion holds when the page is left before it could be undone", async ({ opened: page, fleet }) => {
  await made(fleet, "Carla")
  await card(page, "Carla").getByRole("button", { name: "Delete Carla" }).click()
  await page.reload()
  await expect.poll(async () => (await voices(fleet)).some(({ name }) => name === "Carla")).toBe(false)
})

test("a voice that an emotion uses is deleted only where that is said", async ({ opened: page, fleet }) => {
  const dora = await made(fleet, "Dora")
  await fleet.post("/emotions", { name: "Dora, merry", voices: [dora.id] })
  await card(page, "Dora").getByRole("button", { name: "Delete Dora" }).click()
  await page.getByRole("button", { name: "Dismiss" }).click()
  await expect(page.getByRole("alert")).toContainText("“Dora” is still used")
  await expect(card(page, "Dora")).toBeVisible()
  await page.getByRole("button", { name: "Delete it there, too" }).click()
  await expect(card(page, "Dora")).toHaveCount(0)
})

test("who changes what somebody else has changed sees both versions", async ({ opened: page, fleet }) => {
  const emil = await made(fleet, "Emil")
  await card(page, "Emil").getByRole("button", { name: "Edit Emil" }).click()
  await expect(dialog(page).getByLabel("Name")).toHaveValue("Emil")
  await fleet.json(`/voices/${emil.id}`, {
    method: "PATCH",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ description: "Theirs" }),
  })
  await dialog(page).getByLabel("Description").fill("Mine")
  await dialog(page).getByRole("button", { name: "Save" }).click()
  await expect(dialog(page).getByRole("heading", { name: "Somebody else has changed this voice" })).toBeVisible()
  await expect(dialog(page).getByLabel("Description, yours: Mine")).toBeChecked()
  await expect(dialog(page).getByLabel("Description, theirs: Theirs")).not.toBeChecked()
  await dialog(page).getByRole("button", { name: "Save what is chosen" }).click()
  await expect(card(page, "Emil")).toContainText("Mine")
})

test("voices are found by name, alias and language", async ({ opened: page }) => {
  await page.getByLabel("Search the voices").fill("nova")
  await expect(page.getByRole("article")).toHaveCount(1)
  await expect(card(page, "Soprano")).toBeVisible()
  await page.getByLabel("Search the voices").fill("nobody")
  await expect(page.getByText("No voice is called “nobody”.")).toBeVisible()
})

test("the screen and its dialogs are accessible and look as they should", async ({ opened: page }) => {
  await expect(page.getByRole("article").first()).toBeVisible()
  await look(page, "voices")
  await page.getByRole("button", { name: "New voice" }).click()
  await look(page, "voices-new", "few")
  await page.getByRole("button", { name: "Record with the microphone" }).click()
  await look(page, "voices-record", "few")
})

test("a microphone is recorded, trimmed, heard, and becomes a voice that speaks", async ({ fleet, playwright }) => {
  const played = fleet.file("microphone.wav", await fleet.speech({ text: SPOKEN, voice: "baritone", format: "wav" }))
  const browser = await playwright.chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--use-fake-device-for-media-stream",
      "--use-fake-ui-for-media-stream",
      `--use-file-for-fake-audio-capture=${played}`,
    ],
  })
  try {
    const page = await browser.newPage()
    const watched = watch(page)
    await page.goto(`${fleet.url}/#/voices`)
    await page.getByRole("button", { name: "New voice" }).click()
    await page.getByRole("button", { name: "Record with the microphone" }).click()
    await page.getByRole("button", { name: "Record", exact: true }).click()
    await expect(page.getByText(/[4-9]\.\d s of at most 60 s/)).toBeVisible({ timeout: 15_000 })
    await page.getByRole("button", { name: "Stop recording" }).click()
    const begins = page.getByRole("slider", { name: /Begins at/ })
    await begins.focus()
    for (let i = 0; i < 10; i++) await page.keyboard.press("ArrowRight")
    const keptText = (await page.getByText(/s are kept/).textContent()) ?? ""
    expect(Number.parseFloat(keptText)).toBeGreaterThan(2)
    await page.getByRole("button", { name: "Play what is kept" }).click()
    await expect(page.getByRole("button", { name: "Stop what is kept" })).toBeVisible()
    await page.getByRole("button", { name: "Use this recording" }).click()
    await page.getByLabel("Name").fill("Of the microphone")
    await page.getByRole("button", { name: "Create the voice" }).click()
    await page.getByRole("button", { name: "Done" }).click()
    await expect(card(page, "Of the microphone").getByText("Ready")).toBeVisible()
    const voice = (await voices(fleet)).find(({ name }) => name === "Of the microphone")
    expect(voice?.samples[0]?.report.duration_s).toBeCloseTo(Number.parseFloat(keptText), 0)
    expect(voice?.samples[0]?.report.peak_db).toBeGreaterThan(-40)
    const spoken = await fleet.speech({ text: "With a voice of one’s own.", voice: voice?.id, format: "wav" })
    expect(spoken.length).toBeGreaterThan(48_000)
    expectQuiet(watched, fleet.url)
  } finally {
    await browser.close()
  }
})

test("a microphone that is not allowed is told in plain words", async ({ fleet, playwright }) => {
  const browser = await playwright.chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--use-fake-device-for-media-stream", "--deny-permission-prompts"],
  })
  try {
    const page = await browser.newPage()
    await page.goto(`${fleet.url}/#/voices`)
    await page.getByRole("button", { name: "New voice" }).click()
    await page.getByRole("button", { name: "Record with the microphone" }).click()
    await page.getByRole("button", { name: "Record", exact: true }).click()
    await expect(page.getByRole("alert")).toContainText("The microphone was not allowed")
  } finally {
    await browser.close()
  }
})
