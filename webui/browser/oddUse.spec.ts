// Odd use of what all screens share, and of the emotions: long words, dropped files, many windows at a time.
import type { Locator, Page } from "@playwright/test"
import type { Emotion } from "../src/api/types"
import { expect, type RunningFleet, test } from "./fleet"

const card = (page: Page, name: string) => page.getByRole("article", { name, exact: true })
const dialog = (page: Page) => page.getByRole("dialog")
const LEAST_TARGET_PX = 36

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

test("a file that is dropped beside a card does not replace the page", async ({ opened: page }) => {
  const refused = await page.evaluate(() => {
    const dataTransfer = new DataTransfer()
    dataTransfer.items.add(new File(["sound"], "beside.wav", { type: "audio/wav" }))
    return ["dragover", "drop"].map((name) => {
      const event = new DragEvent(name, { dataTransfer, bubbles: true, cancelable: true })
      return !document.querySelector("nav")?.dispatchEvent(event)
    })
  })
  expect(refused).toEqual([true, true])
})

test("long words stay within a narrow page", async ({ opened: page, fleet }) => {
  const long = (letter: string) => letter.repeat(120)
  const sound = await fleet.speech({ text: "Somebody who speaks for some seconds will do.", format: "wav" })
  const form = new FormData()
  form.append("file", new Blob([new Uint8Array(sound)]), "long.wav")
  form.append("name", long("V"))
  const voice = await fleet.json<{ id: string }>("/voices", { method: "POST", body: form })
  const names = { name: long("N"), character: long("C"), description: long("D"), voices: [voice.id] }
  const made = await fleet.post<Emotion>("/emotions", names)
  await page.setViewportSize({ width: 360, height: 780 })
  await expect(card(page, long("N"))).toBeVisible()
  await expectWithin(page)
  await page.getByLabel("Search the emotions").fill(long("S"))
  await expectWithin(page)
  await page.getByLabel("Search the emotions").fill("")
  await card(page, long("N")).getByRole("button", { name: /^Edit/ }).click()
  await expect(dialog(page).getByLabel("Name")).toHaveValue(long("N"))
  await expectWithin(page)
  await dialog(page).getByRole("button", { name: "Cancel" }).click()
  await card(page, long("N"))
    .getByRole("button", { name: /^Delete/ })
    .click()
  await expectWithin(page)
  await expect(async () => expect((await fetch(`${fleet.url}/emotions/${made.id}`)).status).toBe(404)).toPass()
  await fleet.json(`/voices/${voice.id}`, { method: "DELETE" }).catch(() => undefined)
})

/** Nothing is wider than what holds it: neither the page nor a card, a heading, a message. */
async function expectWithin(page: Page) {
  const wide = await page.evaluate(() =>
    [...document.querySelectorAll("html, main h2, main p, article, li, [role=dialog] > *, [role=status]")]
      .filter((element) => element.clientWidth > 0 && element.scrollWidth > element.clientWidth + 1)
      .filter((element) => getComputedStyle(element).overflowX === "visible")
      .map((element) => element.outerHTML.slice(0, 120)),
  )
  expect(wide).toEqual([])
}

test("every control is large enough for a finger", async ({ opened: page, fleet }) => {
  await fleet.post("/emotions", { name: "Touched", voices: ["alto"], temperature: 0.5 })
  await expect(card(page, "Touched").getByRole("list")).toContainText("Alto")
  expect(await small(page.getByRole("main"))).toEqual([])
  await card(page, "Touched").getByRole("button", { name: "Edit Touched" }).click()
  await dialog(page).getByText("Fine tuning").click()
  await expect(dialog(page).getByLabel("Against repetition", { exact: true })).toBeVisible()
  expect(await small(dialog(page))).toEqual([])
})

function small(within: Locator): Promise<string[]> {
  return within.evaluate(
    (root, least) =>
      [...root.querySelectorAll("button, select, input:not([type=range])")]
        .filter((element) => element.checkVisibility({ visibilityProperty: true }))
        .filter((element) => element.getBoundingClientRect().height < least)
        .map((element) => `${element.getAttribute("aria-label") ?? element.textContent}`),
    LEAST_TARGET_PX,
  )
}

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

test("an emotion that is made again after it was deleted is shown", async ({ opened: page, fleet }) => {
  const first = await fleet.post<Emotion>("/emotions", { name: "Again" })
  await card(page, "Again").getByRole("button", { name: "Delete Again" }).click()
  await page.getByRole("button", { name: "Dismiss" }).click()
  await expect.poll(async () => (await fetch(`${fleet.url}/emotions/${first.id}`)).status).toBe(404)
  const second = await fleet.post<Emotion>("/emotions", { name: "Again", description: "the second" })
  expect(second.id).toBe(first.id)
  await expect(card(page, "Again")).toContainText("the second")
})
