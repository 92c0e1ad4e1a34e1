// What is asked of every screen: that it is accessible, and how it looks.
import { mkdirSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { expect, type Page } from "@playwright/test"

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8")
const SCREENS = new URL("../artefacts/screens/", import.meta.url).pathname

interface Finding {
  id: string
  impact: string
  where: string[]
}

/** No finding of axe that is serious or critical. */
export async function expectAccessible(page: Page): Promise<void> {
  await page.evaluate(AXE) // not as an element: the page's policy allows none
  const findings = await page.evaluate(async () => {
    const { axe } = window as unknown as { axe: { run: () => Promise<{ violations: AxeViolation[] }> } }
    interface AxeViolation {
      id: string
      impact: string
      nodes: { html: string; failureSummary: string }[]
    }
    const { violations } = await axe.run()
    return violations.map(({ id, impact, nodes }) => ({
      id,
      impact,
      where: nodes.map(({ html, failureSummary }) => `${html}\n${failureSummary}`),
    }))
  })
  const grave = (findings as Finding[]).filter(({ impact }) => impact === "serious" || impact === "critical")
  expect(grave, JSON.stringify(grave, null, 1)).toEqual([])
}

const EVERYWHERE = (["light", "dark"] as const).flatMap((theme) => [360, 1280, 2560].map((width) => ({ theme, width })))
const FEW = [
  { theme: "light", width: 1280 },
  { theme: "dark", width: 360 },
] as const

/**
 * Looks at a screen in light and dark at three widths: nothing is wider than the page, and pictures are kept. What a screen
 * only shows for a while, as a dialog, is looked at in `few`. In either it is asked of axe in both colours.
 */
export async function look(page: Page, name: string, which: "everywhere" | "few" = "everywhere"): Promise<void> {
  mkdirSync(SCREENS, { recursive: true })
  const before = page.viewportSize() ?? { width: 1280, height: 900 }
  for (const { theme, width } of which === "few" ? FEW : EVERYWHERE) {
    await page.emulateMedia({ colorScheme: theme })
    await page.setViewportSize({ width, height: width === 360 ? 780 : 900 })
    await page.waitForTimeout(150)
    const overflow = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    )
    expect(overflow, `${name} at ${width} px is wider than the page`).toBeLessThanOrEqual(0)
    await page.screenshot({ path: `${SCREENS}${name}-${width}-${theme}.png`, fullPage: true })
    if (FEW.some((one) => one.theme === theme && one.width === width)) await expectAccessible(page)
  }
  await page.emulateMedia({ colorScheme: null })
  await page.setViewportSize(before)
}
