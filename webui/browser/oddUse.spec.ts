// Odd use of what all screens share, and of the emotions: long words, dropped files, many windows at a time.
import type { Page } from "@playwright/test"
import type { Emotion } from "../src/api/types"
import { expect, type RunningFleet, test } from "./fleet"

const card = (page: Page, name: string) => page.getByRole("article", { name, exact: true })
const dialog = (page: Page) => page.getByRole("dialog")

test.beforeEach(async ({ opened: page }) => {
  await page.getByRole("link", { name: "Emotions" }).click()
  await expect(card(page, "neutral")).toBeVisible()
})

async function put(fleet: RunningFleet, { id, created_at: _, updated_at: __, ...profile }: Emotion, change: object) {
  return await fleet.json<Emotion>(`/emotions/${id}`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...profile, ...change }),
  })
}

test("a deletion can be undone while a window is open, and the window stays", async ({ opened: page, fleet }) => {
  await fleet.post("/emotions", { name: "Undone" })
  await card(page, "Undone").getByRole("button", { name: "Delete Undone" }).click()
  await page.getByRole("button", { name: "New emotion" }).click()
  await expect(dialog(page).getByLabel("Name")).toBeVisible()
  await page.getByRole("button", { name: "Undo" }).click({ timeout: 3_000 })
  await expect(dialog(page).getByLabel("Name")).toBeVisible()
  await page.keyboard.press("Escape")
  await expect(card(page, "Undone")).toBeVisible()
})

test("of two versions, what only one side has changed is that side's at first", async ({ opened: page, fleet }) => {
  const first = await fleet.post<Emotion>("/emotions", { name: "Two sides", description: "first", temperature: 0.5 })
  await card(page, "Two sides").getByRole("button", { name: "Edit Two sides" }).click()
  await expect(dialog(page).getByLabel("Description")).toHaveValue("first")
  const second = await put(fleet, first, { character: "Theirs" })
  await dialog(page).getByLabel("Description").fill("mine")
  await dialog(page).getByRole("button", { name: "Save" }).click()
  await expect(dialog(page).getByLabel("Description, yours: mine")).toBeChecked()
  await expect(dialog(page).getByLabel("Character, theirs: Theirs")).toBeChecked()
  await put(fleet, second, { temperature: 0.7 })
  await dialog(page).getByRole("button", { name: "Save what is chosen" }).click()
  await expect(dialog(page).getByLabel("Variety, theirs: 0.7")).toBeChecked()
  await dialog(page).getByRole("button", { name: "Save what is chosen" }).click()
  await expect(dialog(page)).toHaveCount(0)
  const saved = await fleet.json<Emotion>(`/emotions/${first.id}`)
  expect([saved.description, saved.character, saved.temperature]).toEqual(["mine", "Theirs", 0.7])
})

test("leaving a choice of versions says what is lost; going on from theirs loses nothing", async ({
  opened: page,
  fleet,
}) => {
  const first = await fleet.post<Emotion>("/emotions", { name: "Left", description: "first" })
  await card(page, "Left").getByRole("button", { name: "Edit Left" }).click()
  await expect(dialog(page).getByLabel("Description")).toHaveValue("first")
  await put(fleet, first, { description: "theirs" })
  await dialog(page).getByLabel("Description").fill("mine")
  await dialog(page).getByRole("button", { name: "Save" }).click()
  await expect(dialog(page).getByRole("table")).toBeVisible()
  await page.keyboard.press("Escape")
  await expect(dialog(page).getByRole("alert")).toContainText("What you have changed is not saved.")
  await dialog(page).getByRole("button", { name: "Go on from theirs" }).click()
  await expect(dialog(page).getByLabel("Description")).toHaveValue("theirs")
  await expect(dialog(page).getByRole("alert")).toHaveCount(0)
})

test("what is heard in a window falls silent with it", async ({ opened: page }) => {
  await page.getByRole("button", { name: "New emotion" }).click()
  await dialog(page).getByLabel("Hear it").fill("A long sentence that goes on for quite some time. ".repeat(6))
  await page.evaluate(() => {
    const sounds: HTMLMediaElement[] = []
    Object.assign(window, { sounds })
    const play = HTMLMediaElement.prototype.play
    HTMLMediaElement.prototype.play = function () {
      sounds.push(this)
      return play.call(this)
    }
  })
  const paused = () =>
    page.evaluate(() => (window as unknown as { sounds: HTMLMediaElement[] }).sounds.map(({ paused }) => paused))
  await dialog(page).getByRole("button", { name: "Play how it sounds now" }).click()
  await expect.poll(paused).toEqual([false])
  await dialog(page).getByRole("button", { name: "Cancel" }).click()
  await expect.poll(paused).toEqual([true])
})

test("of an emotion that could not be read it is tried again", async ({ opened: page, fleet }) => {
  await fleet.post("/emotions", { name: "Read late", description: "there" })
  await expect(card(page, "Read late")).toBeVisible()
  await page.context().setOffline(true)
  await card(page, "Read late").getByRole("button", { name: "Edit Read late" }).click()
  await expect(dialog(page).getByRole("alert")).toContainText("does not answer")
  await page.context().setOffline(false)
  await dialog(page).getByRole("button", { name: "Try again" }).click()
  await expect(dialog(page).getByLabel("Description")).toHaveValue("there")
})

test("two who have made the same change have nothing to choose", async ({ opened: page, fleet }) => {
  const first = await fleet.post<Emotion>("/emotions", { name: "Agreed" })
  await card(page, "Agreed").getByRole("button", { name: "Edit Agreed" }).click()
  await expect(dialog(page).getByLabel("Name")).toHaveValue("Agreed")
  await put(fleet, first, { description: "the same" })
  await dialog(page).getByLabel("Description").fill("the same")
  await dialog(page).getByRole("button", { name: "Save" }).click()
  await expect(dialog(page)).toHaveCount(0)
  await expect(card(page, "Agreed")).toContainText("the same")
})
