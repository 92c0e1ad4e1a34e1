// What is between the page and the fleet when it is not as it should be; two tabs at a time.
import { expect, test } from "./fleet"

test("what is typed in one of two tabs arrives whole, and the other keeps its own draft open", async ({
  opened: first,
}) => {
  await first.getByLabel("Text to speak").fill("In the first tab.")
  const second = await first.context().newPage()
  await second.goto(first.url())
  await second.getByRole("button", { name: "Drafts" }).click()
  await second.getByRole("menuitem", { name: /^New/ }).click()
  await first.evaluate(() => {
    const counted = window as unknown as { changes: number }
    counted.changes = 0
    addEventListener("storage", () => counted.changes++)
  })
  const typed = "Typed in the second tab."
  await second.getByLabel("Text to speak").pressSequentially(typed, { delay: 20 })
  await expect(second.getByLabel("Text to speak")).toHaveValue(typed)
  await second.waitForTimeout(500)
  expect(await first.evaluate(() => (window as unknown as { changes: number }).changes)).toBe(typed.length)
  await expect(first.getByLabel("Text to speak")).toHaveValue("In the first tab.")
  const kept = await first.evaluate(() => JSON.parse(localStorage.getItem("fleet.drafts") ?? "").state.drafts)
  expect(kept.map(({ text }: { text: string }) => text)).toEqual([typed, "In the first tab."])
})

const AWAY = "The server does not answer. What you write is kept here"

test("a server that takes questions and says nothing is away, and its figures go on by themselves after it", async ({
  opened: page,
  fleet,
}) => {
  await page.getByRole("link", { name: "Fleet" }).click()
  await expect(page.getByText("Live", { exact: true })).toBeVisible()
  const { pid } = await fleet.json<{ pid: number }>("/health")
  process.kill(pid, "SIGSTOP")
  try {
    await expect(page.getByText(AWAY)).toBeVisible({ timeout: 20_000 })
  } finally {
    process.kill(pid, "SIGCONT")
  }
  await expect(page.getByText(AWAY)).toHaveCount(0, { timeout: 15_000 })
  await expect(page.getByText("Live", { exact: true })).toBeVisible({ timeout: 15_000 })
})

test("a server that is away behind a proxy stays away until it is back", async ({ opened: page }) => {
  const error = { code: "upstream_failed", message: "the balancer does not answer", param: null, request_id: "r1" }
  const fleets = /\/(health|voices|emotions|stats)/
  await page.route(fleets, (route) => route.fulfill({ status: 502, json: { error } }))
  await page.getByRole("link", { name: "Fleet" }).click()
  await expect(page.getByText(AWAY)).toBeVisible({ timeout: 15_000 })
  for (let i = 0; i < 40; i++) {
    expect(await page.getByText(AWAY).isVisible()).toBe(true)
    await page.waitForTimeout(100)
  }
  await page.unroute(fleets)
  await expect(page.getByText(AWAY)).toHaveCount(0, { timeout: 15_000 })
})

test("voices whose list was lost on its way are asked for again", async ({ page, fleet }) => {
  let asked = 0
  await page.route(/\/voices\?/, (route) => (asked++ === 0 ? route.abort("connectionreset") : route.continue()))
  await page.goto(fleet.url)
  await expect(page.getByRole("combobox", { name: "Voice" })).toHaveValue("Alto (default)", { timeout: 10_000 })
  expect(asked).toBeGreaterThan(1)
})

test("what cannot be a key is refused beside its field", async ({ opened: page }) => {
  const refused = { code: "invalid_api_key", message: "an API key is needed", param: null, request_id: "r1" }
  await page.route(/\/voices\?/, (route) => route.fulfill({ status: 401, json: { error: refused } }))
  await page.getByRole("link", { name: "Emotions" }).click()
  await page.reload()
  const dialog = page.getByRole("dialog", { name: "The fleet's key" })
  await dialog.getByLabel("API key").fill("pasted—with a dash")
  await expect(dialog.getByText("A key has no spaces, and only plain letters, digits and signs.")).toBeVisible()
  await expect(dialog.getByLabel("API key")).toHaveAttribute("aria-invalid", "true")
  await page.keyboard.press("Enter")
  await expect(dialog.getByLabel("API key")).toHaveValue("pasted—with a dash")
})
