// What is asked of every screen: that it is accessible, and how it looks.
import { mkdirSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { expect, type Page } from "@playwright/test"

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8")
const SCREENS = new URL("../artefacts/screens/", import.meta.url).pathname
const WIDTHS = [360, 1280, 2560]

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

/** Looks at a screen in light and dark at three widths: accessible, nothing wider than the page, and kept as pictures. */
export async function look(page: Page, name: string): Promise<void> {
  mkdirSync(SCREENS, { recursive: true })
  const before = page.viewportSize() ?? { width: 1280, height: 900 }
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme })
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: width === 360 ? 780 : 900 })
      await page.waitForTimeout(150)
      const overflow = await page.evaluate(
        () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
      )
      expect(overflow, `${name} at ${width} px is wider than the page`).toBeLessThanOrEqual(0)
      await page.screenshot({ path: `${SCREENS}${name}-${width}-${colorScheme}.png`, fullPage: true })
      if (width === (colorScheme === "light" ? 360 : 1280)) await expectAccessible(page)
    }
  }
  await page.emulateMedia({ colorScheme: null })
  await page.setViewportSize(before)
}
