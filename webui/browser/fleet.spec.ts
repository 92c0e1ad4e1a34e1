// Fleet: every worker live, its last minutes, draining and resuming; a worker that dies.
import type { Page } from "@playwright/test"
import { look } from "./checks"
import { expect, test } from "./fleet"

const row = (page: Page, worker: string) => page.getByRole("row", { name: new RegExp(`^${worker}`) })

test.use({ viewport: { width: 1800, height: 1000 } })

test.beforeEach(async ({ opened: page }) => {
  await page.getByRole("link", { name: "Fleet" }).click()
  await expect(row(page, "worker-0")).toBeVisible()
})

test("every worker is told live, and plainly that it is the demo voice", async ({ opened: page, fleet }) => {
  await expect(page.getByText(/It speaks with the embedded demo voice, espeak .* that is not Chatterbox/)).toBeVisible()
  for (const { name, url, health } of (await fleet.stats()).workers) {
    await expect(row(page, name)).toContainText("Ready")
    for (const told of [url, "espeak", health?.model ?? "", "cpu", "MiB", "of 256"]) {
      await expect(row(page, name)).toContainText(told)
    }
    await expect(row(page, name)).toContainText("This engine decodes no tokens.") // why there are no steps
  }
  const requests = async () => {
    const { workers } = await fleet.stats()
    return workers.reduce((sum, worker) => sum + worker.requests, 0)
  }
  const shown = async () => {
    const cells = await page.getByRole("cell").allTextContents()
    return cells.join(" ")
  }
  const before = await shown()
  for (let i = 0; i < 4; i++) await fleet.speech({ text: "Something to count.", format: "wav" })
  expect(await requests()).toBeGreaterThan(0)
  await expect.poll(shown).not.toBe(before)
})

test("the last minutes are drawn and told in words", async ({ opened: page, fleet }) => {
  for (let i = 0; i < 5; i++) {
    await fleet.speech({ text: "Something to draw.", format: "wav" })
    await page.waitForTimeout(700)
  }
  const chart = page.getByRole("img", { name: /^Requests over the last/ })
  await expect(chart).toHaveAccessibleName(/now [\d.]+\/s, at least [\d.]+\/s, at most [\d.]+\/s/)
  expect(await chart.locator("polyline").count()).toBeGreaterThan(0)
  await expect(page.getByRole("img", { name: /^Decode steps: not told/ })).toHaveCount(2)
  await expect(page.getByRole("img", { name: /^Memory over the last .* MiB/ })).toHaveCount(2)
})

test("a worker is drained and resumed, the last one only when that is said twice", async ({ opened: page, fleet }) => {
  await page.getByRole("button", { name: "Drain worker-0" }).click()
  await expect(row(page, "worker-0")).toContainText("Draining")
  await expect(row(page, "worker-0")).toContainText("an administrator drains it")
  await page.getByRole("button", { name: "Drain worker-1" }).click()
  await expect(page.getByRole("alert")).toContainText("It is the last one that takes requests")
  expect((await fleet.stats()).totals.ready).toBe(1)
  await page.getByRole("button", { name: "Drain it all the same: worker-1" }).click()
  await expect(row(page, "worker-1")).toContainText("Draining")
  for (const worker of ["worker-0", "worker-1"]) {
    await page.getByRole("button", { name: `Resume ${worker}` }).click()
    await expect(row(page, worker)).toContainText("Ready")
  }
})

test("the keyboard alone drains and resumes, and is not lost on the way", async ({ opened: page }) => {
  await page.getByRole("button", { name: "Drain worker-0" }).focus()
  await page.keyboard.press("Enter")
  await expect(page.getByRole("button", { name: "Resume worker-0" })).toBeFocused()
  await page.keyboard.press("Enter")
  await expect(page.getByRole("button", { name: "Drain worker-0" })).toBeFocused()
})

test("a doubt about the last worker is gone when there is another one", async ({ opened: page, fleet }) => {
  await page.getByRole("button", { name: "Drain worker-0" }).click()
  await expect(row(page, "worker-0")).toContainText("Draining")
  await page.getByRole("button", { name: "Drain worker-1" }).click()
  await expect(page.getByRole("alert")).toBeVisible()
  await fleet.post("/workers/worker-0/resume", {})
  await expect(page.getByRole("alert")).toHaveCount(0)
  await expect(page.getByRole("button", { name: "Drain worker-1" })).toBeVisible()
})

test("a worker that dies is seen to be gone, and to come back", async ({ opened: page, fleet }) => {
  await fleet.kill("worker-1")
  await expect(row(page, "worker-1")).not.toContainText("Ready", { timeout: 15_000 })
  await expect(row(page, "worker-1")).toContainText("Ready", { timeout: 30_000 })
})

test("the screen is accessible and looks as it should", async ({ opened: page }) => {
  await page.waitForTimeout(2_500)
  await look(page, "fleet")
})
