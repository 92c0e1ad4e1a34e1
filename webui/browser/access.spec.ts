// Keys, a server that is away, the keyboard alone, and colours.
import type { Page } from "@playwright/test"
import { look } from "./checks"
import { expect, expectQuiet, RunningFleet, test, watch } from "./fleet"

const KEY = "a-key-for-the-browser-tests"
const ADMIN = "an-administrators-key-for-tests"

test("a fleet with keys asks for one, says that one is wrong, and keeps the right one", async ({ page }) => {
  const guarded = await RunningFleet.start()
  await guarded.end()
  const keys = guarded.file("keys", `anna ${KEY}\nops ${ADMIN} admin\n`)
  Object.assign(guarded, { settings: { BALANCER_API_KEYS: keys } })
  await guarded.begin()
  try {
    const watched = watch(page)
    await page.goto(guarded.url)
    const dialog = page.getByRole("dialog", { name: "The fleet's key" })
    await expect(dialog.getByRole("heading")).toBeVisible()
    await look(page, "key", "few")
    await dialog.getByRole("button", { name: "Close" }).click()
    await page.waitForTimeout(3_500) // longer than between two attempts to read the library
    await expect(dialog).toHaveCount(0)
    await page.getByRole("button", { name: "Enter a key" }).click()
    await dialog.getByLabel("API key").fill("wrong")
    await dialog.getByRole("button", { name: "Use this key" }).click()
    await expect(dialog.getByText("This key is not known to the fleet.")).toBeVisible()
    await dialog.getByLabel("API key").fill(KEY)
    await page.keyboard.press("Enter")
    await expect(dialog).toHaveCount(0)
    await page.keyboard.press("Control+Enter")
    await expect(page.getByRole("article", { name: /^Take: / })).toHaveCount(1, { timeout: 30_000 })
    await page.reload()
    await expect(page.getByRole("combobox", { name: "Voice" })).toHaveValue("Alto (default)")
    await page.getByRole("link", { name: "Fleet" }).click()
    await page.getByRole("button", { name: "Drain worker-0" }).first().click()
    await expect(page.getByRole("alert")).toContainText("Only an administrator may do this")
    await page.getByRole("button", { name: "Change the key" }).click()
    await dialog.getByLabel("API key").fill(ADMIN)
    await page.keyboard.press("Enter")
    await page.getByRole("button", { name: "Drain worker-0" }).first().click()
    await expect(page.getByRole("button", { name: "Resume worker-0" }).first()).toBeVisible()
    expectQuiet(watched, guarded.url)
  } finally {
    await guarded.close()
  }
})

test("while the server is away the page says so, loses no text, and goes on by itself", async ({ page }) => {
  const fleet = await RunningFleet.start()
  try {
    const watched = watch(page)
    await page.goto(fleet.url)
    const text = page.getByLabel("Text to speak")
    await text.fill("Written while it was there.")
    await expect.poll(() => watched.requests.some((url) => url.includes("fleetScreen"))).toBe(true)
    await fleet.end()
    await expect(page.getByText("The server does not answer. What you write is kept here")).toBeVisible({
      timeout: 15_000,
    })
    await text.fill("Written while it was away.")
    await expect(page.getByRole("button", { name: "Generate" })).toBeDisabled()
    await look(page, "away", "few")
    for (const screen of ["Voices", "Emotions", "Fleet", "Speak"]) {
      await page.getByRole("link", { name: screen }).click()
      await expect(page.getByRole("heading", { name: screen, exact: true })).toBeAttached()
    }
    await fleet.begin()
    await expect(page.getByRole("button", { name: "Generate" })).toBeEnabled({ timeout: 15_000 })
    await expect(text).toHaveValue("Written while it was away.")
    await page.keyboard.press("Control+Enter")
    await expect(page.getByRole("article", { name: /^Take: Written while it was away/ })).toBeVisible()
    await page.reload()
    await expect(text).toHaveValue("Written while it was away.")
    expectQuiet(watched, fleet.url)
  } finally {
    await fleet.close()
  }
})

const focused = (page: Page) =>
  page.evaluate(() => {
    const element = document.activeElement as HTMLElement
    return element.ariaLabel ?? element.textContent ?? element.tagName
  })

test("the keyboard alone goes everywhere and speaks", async ({ opened: page }) => {
  await page.keyboard.press("Tab")
  expect(await focused(page)).toBe("Skip to the content")
  await page.keyboard.press("Enter")
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("main")
  const seen = new Set<string>()
  for (let i = 0; i < 40; i++) {
    await page.keyboard.press("Tab")
    seen.add(await focused(page))
  }
  for (const control of ["Text to speak", "Open a file", "Generate", "Draw a seed"]) {
    expect(
      [...seen].some((name) => name.includes(control)),
      control,
    ).toBe(true)
  }
  await page.getByLabel("Text to speak").focus()
  await page.keyboard.press("Control+A")
  await page.keyboard.type("By the keyboard alone.")
  await page.keyboard.press("Control+Enter")
  await expect(page.getByRole("article", { name: "Take: By the keyboard alone." })).toBeVisible()
  await page.getByRole("link", { name: "Voices" }).focus()
  await page.keyboard.press("Enter")
  await expect(page).toHaveTitle("Voices · Chatterbox Fleet")
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("main")
})

test("colours follow the system until some are chosen, and the choice stays", async ({ opened: page }) => {
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme)
  await page.emulateMedia({ colorScheme: "dark" })
  await expect.poll(theme).toBe("dark")
  await page.getByRole("button", { name: "Colours: light" }).click()
  await expect.poll(theme).toBe("light")
  await page.reload()
  await expect.poll(theme).toBe("light")
})

test("a page without a secure context plays all the same", async ({ page, fleet }) => {
  await page.addInitScript(() => {
    // What pages over plain http from another machine lack.
    Object.defineProperty(AudioContext.prototype, "audioWorklet", { value: undefined })
    Object.defineProperty(globalThis, "isSecureContext", { value: false })
  })
  await page.goto(fleet.url)
  await page.getByLabel("Text to speak").fill("Played without a worklet.")
  await page.keyboard.press("Control+Enter")
  const position = page.getByRole("slider", { name: "Position in the sound" })
  await expect.poll(async () => Number(await position.getAttribute("aria-valuenow"))).toBeGreaterThan(1)
  await page.getByRole("link", { name: "Voices" }).click()
  await page.getByRole("button", { name: "New voice" }).click()
  await page.getByRole("button", { name: "Record with the microphone" }).click()
  await expect(page.getByRole("alert")).toContainText("Browsers give the microphone only to pages over https")
})
