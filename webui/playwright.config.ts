// The page in Debian's Chromium. Everything is real: the fleet, the sound, the clicks.
import { defineConfig } from "@playwright/test"

export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium"

export default defineConfig({
  testDir: process.env.SITE ? "browser/nginx" : "browser",
  testIgnore: process.env.SITE ? [] : "nginx/**",
  outputDir: "artefacts/runs",
  timeout: 60_000,
  workers: 1,
  retries: 0,
  reporter: [["line"]],
  use: {
    viewport: { width: 1280, height: 900 },
    launchOptions: { executablePath: CHROMIUM, args: ["--no-sandbox"] },
    acceptDownloads: true,
  },
})
