// Emotions: made, heard, changed against others, and given voices by drag.
import type { Page } from "@playwright/test"
import type { Emotion } from "../src/api/types"
import { look } from "./checks"
import { expect, type RunningFleet, test } from "./fleet"

const card = (page: Page, name: string) => page.getByRole("article", { name, exact: true })
const dialog = (page: Page) => page.getByRole("dialog")

async function emotion(fleet: RunningFleet, name: string): Promise<Emotion | undefined> {
  const { emotions } = await fleet.json<{ emotions: Emotion[] }>("/emotions?limit=1000")
  return emotions.find((found) => found.name === name)
}

async function put(fleet: RunningFleet, { id, created_at: _, updated_at: __, ...profile }: Emotion, change: object) {
  await fleet.json(`/emotions/${id}`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...profile, ...change }),
  })
}

test.beforeEach(async ({ opened: page }) => {
  await page.getByRole("link", { name: "Emotions" }).click()
  await expect(card(page, "neutral")).toBeVisible()
})

test("a character's emotion is made, heard before and after it is saved, and spoken with", async ({
  opened: page,
  fleet,
}) => {
  await page.getByRole("button", { name: "New emotion" }).click()
  await dialog(page).getByLabel("Name").fill("Anna, excited")
  await dialog(page).getByLabel("Character").fill("Anna")
  await dialog(page).getByLabel("Add a voice").selectOption("Soprano")
  await dialog(page).getByLabel("Add a voice").selectOption("Tenor")
  await dialog(page).getByRole("button", { name: "Tenor: further up" }).click()
  await dialog(page).getByLabel("Expressiveness, exactly").fill("0,9")
  await dialog(page).getByLabel("Expressiveness, exactly").press("Enter")
  await dialog(page).getByLabel("Hear it").fill("Guess what!")
  await dialog(page).getByRole("button", { name: "Play how it sounds now" }).click()
  await expect(dialog(page).getByRole("button", { name: /how it sounds now/ })).toBeVisible()
  await dialog(page).getByRole("button", { name: "Save" }).click()
  await expect(dialog(page)).toHaveCount(0)
  await expect(page.getByRole("region", { name: "Anna" }).getByRole("article")).toHaveCount(1)
  const saved = await emotion(fleet, "Anna, excited")
  expect([saved?.exaggeration, saved?.voices, saved?.temperature]).toEqual([0.9, ["tenor", "soprano"], null])
  await card(page, "Anna, excited").getByRole("button", { name: "Play Anna, excited spoken" }).click()
  await expect(card(page, "Anna, excited").getByRole("button", { name: "Stop Anna, excited spoken" })).toBeVisible()
  await card(page, "Anna, excited").getByRole("button", { name: "Speak with it" }).click()
  await expect(page.getByRole("combobox", { name: "Emotion" })).toHaveValue("Anna, excited")
  await expect(page.getByRole("combobox", { name: "Voice" })).toHaveValue("Tenor (the emotion’s)")
})

test("an emotion is duplicated, and deleted with a way back", async ({ opened: page, fleet }) => {
  await card(page, "calm").getByRole("button", { name: "Duplicate calm" }).click()
  await expect(dialog(page).getByLabel("Name")).toHaveValue("calm (copy)")
  await dialog(page).getByRole("button", { name: "Save" }).click()
  const copy = card(page, "calm (copy)")
  await copy.getByRole("button", { name: "Delete calm (copy)" }).click()
  await expect(copy).toHaveCount(0)
  await page.getByRole("button", { name: "Undo" }).click()
  await expect(copy).toBeVisible()
  await copy.getByRole("button", { name: "Delete calm (copy)" }).click()
  await page.getByRole("button", { name: "Dismiss" }).click()
  await expect.poll(async () => await emotion(fleet, "calm (copy)")).toBeUndefined()
})

test("a name that is taken and one that is missing are told at the field", async ({ opened: page }) => {
  await page.getByRole("button", { name: "New emotion" }).click()
  await expect(dialog(page).getByRole("button", { name: "Save" })).toBeDisabled()
  await dialog(page).getByLabel("Name").fill("neutral")
  await dialog(page).getByRole("button", { name: "Save" }).click()
  await expect(dialog(page).getByLabel("Name")).toHaveAccessibleDescription(/neutral/)
  await page.keyboard.press("Escape")
  await expect(dialog(page).getByRole("alert")).toContainText("What you have changed is not saved.")
  await dialog(page).getByRole("button", { name: "Leave without saving" }).click()
  await expect(dialog(page)).toHaveCount(0)
})

test("voices are attached by drag and by keyboard, and taken out again", async ({ opened: page, fleet }) => {
  await fleet.post("/emotions", { name: "Dragged to" })
  const shelf = page.getByRole("complementary", { name: "Voices to drag" })
  await shelf.getByText("Baritone").dragTo(card(page, "Dragged to"))
  await expect(card(page, "Dragged to").getByRole("list")).toContainText("Baritone")
  await card(page, "Dragged to").getByLabel("Add a voice to Dragged to").selectOption("Alto")
  await expect(card(page, "Dragged to").getByRole("list")).toContainText("Alto")
  await expect.poll(async () => (await emotion(fleet, "Dragged to"))?.voices).toEqual(["baritone", "alto"])
  await card(page, "Dragged to").getByRole("button", { name: "Take Baritone out of Dragged to" }).click()
  await expect.poll(async () => (await emotion(fleet, "Dragged to"))?.voices).toEqual(["alto"])
})

test("a recording that is dropped on an emotion becomes a voice of it", async ({ opened: page, fleet }) => {
  await fleet.post("/emotions", { name: "Dropped on" })
  const sound = await fleet.speech({ text: "Somebody who speaks for some seconds will do.", format: "wav" })
  const files = await page.evaluateHandle(
    (bytes) => {
      const transfer = new DataTransfer()
      transfer.items.add(new File([Uint8Array.from(bytes)], "somebody.wav", { type: "audio/wav" }))
      return transfer
    },
    [...sound],
  )
  await card(page, "Dropped on").dispatchEvent("dragover", { dataTransfer: files })
  await card(page, "Dropped on").dispatchEvent("drop", { dataTransfer: files })
  await expect(card(page, "Dropped on").getByRole("list")).toContainText("Dropped on")
  expect((await emotion(fleet, "Dropped on"))?.voices).toHaveLength(1)
})

test("of two versions each field is chosen", async ({ opened: page, fleet }) => {
  const theirs = await fleet.post<Emotion>("/emotions", { name: "Contested", description: "first", exaggeration: 0.5 })
  await card(page, "Contested").getByRole("button", { name: "Edit Contested" }).click()
  await expect(dialog(page).getByLabel("Description")).toHaveValue("first")
  await put(fleet, theirs, { description: "theirs", exaggeration: 0.7 })
  await dialog(page).getByLabel("Description").fill("mine")
  await dialog(page).getByRole("button", { name: "Save" }).click()
  await expect(dialog(page).getByRole("heading", { name: "Somebody else has changed this emotion" })).toBeVisible()
  await expect(dialog(page).getByLabel("Description, yours: mine")).toBeChecked()
  await dialog(page).getByLabel("Expressiveness, theirs: 0.7").check()
  await look(page, "emotions-conflict", "few")
  await dialog(page).getByRole("button", { name: "Save what is chosen" }).click()
  await expect(dialog(page)).toHaveCount(0)
  const saved = await emotion(fleet, "Contested")
  expect([saved?.description, saved?.exaggeration]).toEqual(["mine", 0.7])
})

test("what somebody else changed meanwhile stays when only a voice is attached", async ({ opened: page, fleet }) => {
  const theirs = await fleet.post<Emotion>("/emotions", { name: "Meanwhile" })
  await expect(card(page, "Meanwhile")).toBeVisible()
  await put(fleet, theirs, { description: "theirs", voices: ["alto"] })
  await card(page, "Meanwhile").getByLabel("Add a voice to Meanwhile").selectOption("Tenor")
  await expect.poll(async () => (await emotion(fleet, "Meanwhile"))?.voices).toEqual(["alto", "tenor"])
  expect((await emotion(fleet, "Meanwhile"))?.description).toBe("theirs")
})

test("the screen and its editor are accessible and look as they should", async ({ opened: page }) => {
  await look(page, "emotions")
  await page.getByRole("button", { name: "New emotion" }).click()
  await look(page, "emotions-new", "few")
})
