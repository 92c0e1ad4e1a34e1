// Odd use of what all screens share, and of the emotions: long words, dropped files, many windows at a time.
import type { Page } from "@playwright/test"
import { expect, test } from "./fleet"

const card = (page: Page, name: string) => page.getByRole("article", { name, exact: true })
const dialog = (page: Page) => page.getByRole("dialog")

test.beforeEach(async ({ opened: page }) => {
  await page.getByRole("link", { name: "Emotions" }).click()
  await expect(card(page, "neutral")).toBeVisible()
})

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
