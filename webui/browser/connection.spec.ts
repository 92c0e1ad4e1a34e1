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
