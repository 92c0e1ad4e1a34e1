// A real fleet for the tests in a browser, and a page of it that is watched.
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test as base, expect, type Page } from "@playwright/test"
import type { FleetStats } from "../src/api/types"

const ROOT = new URL("../../", import.meta.url).pathname
const PYTHON = process.env.PYTHON ?? "python3"
const START_LIMIT_MS = 60_000

/** `python -m fleet.up` on the espeak engine as a child; `settings` are environment variables. */
export class RunningFleet {
  private process: ChildProcess | null = null
  private said = ""
  readonly url: string
  readonly data = mkdtempSync(join(tmpdir(), "fleet-browser-"))

  private constructor(
    readonly port: number,
    private readonly settings: Record<string, string>,
  ) {
    this.url = `http://127.0.0.1:${port}`
  }

  static async start(settings: Record<string, string> = {}): Promise<RunningFleet> {
    const fleet = new RunningFleet(await freePort(), settings)
    await fleet.begin()
    return fleet
  }

  /** Starts it, or starts it again with the same data. */
  async begin(): Promise<void> {
    this.said = ""
    const flags = ["--engine", "espeak", "--port", String(this.port), "--data", this.data]
    const environment = { ...process.env, PYTHONPATH: ROOT, ...this.settings }
    const child = spawn(PYTHON, ["-P", "-m", "fleet.up", ...flags], { env: environment })
    this.process = child
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (text) => (this.said += text))
    const deadline = Date.now() + START_LIMIT_MS
    while (!this.said.includes("ready:")) {
      if (child.exitCode !== null || Date.now() > deadline) throw new Error(`the fleet did not start: ${this.said}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  /** Ends it and everything it started. */
  async end(): Promise<void> {
    const child = this.process
    if (!child || child.exitCode !== null) return
    const over = new Promise((resolve) => child.once("exit", resolve))
    child.kill("SIGTERM")
    await over
  }

  async close(): Promise<void> {
    await this.end()
    rmSync(this.data, { recursive: true, force: true })
  }

  file(name: string, content: string | Buffer): string {
    const path = join(this.data, name)
    writeFileSync(path, content)
    return path
  }

  async stats(key?: string): Promise<FleetStats> {
    return await this.json("/stats", key ? { headers: { authorization: `Bearer ${key}` } } : {})
  }

  async json<T>(path: string, init: RequestInit = {}): Promise<T> {
    const answer = await fetch(this.url + path, init)
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`)
    return (await answer.json()) as T
  }

  async post<T>(path: string, body: unknown): Promise<T> {
    return await this.json(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    })
  }

  /** Speech as a file. */
  async speech(body: object): Promise<Buffer> {
    const headers = { "content-type": "application/json" }
    const answer = await fetch(`${this.url}/synthesize`, { method: "POST", headers, body: JSON.stringify(body) })
    return Buffer.from(await answer.arrayBuffer())
  }

  /** Kills the process of a worker. */
  async kill(worker: string): Promise<void> {
    const found = (await this.stats()).workers.find(({ name }) => name === worker)
    if (!found?.health) throw new Error(`no worker ${worker}`)
    process.kill(found.health.pid, "SIGKILL")
  }
}

async function freePort(): Promise<number> {
  while (true) {
    // Below the range of outgoing connections; the workers take ports behind it.
    const port = 12_000 + Math.floor(Math.random() * 18_000)
    const free = await Promise.all([0, 5, 6].map((offset) => isFree(port + offset)))
    if (free.every(Boolean)) return port
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once("error", () => resolve(false))
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)))
  })
}

/** What a page asked for and complained of. */
export interface Watched {
  requests: string[]
  complaints: string[]
}

export function watch(page: Page): Watched {
  const watched: Watched = { requests: [], complaints: [] }
  page.on("request", (request) => watched.requests.push(request.url()))
  page.on("pageerror", (error) => watched.complaints.push(String(error)))
  page.on("console", (message) => {
    // What is refused on purpose is told in the console by the browser itself.
    const refused = /Failed to load resource|ERR_/.test(message.text())
    if (message.type() === "error" && !refused) watched.complaints.push(message.text())
  })
  return watched
}

/** Nothing left the origin, and nothing was complained of: policies that were broken are complaints, too. */
export function expectQuiet({ requests, complaints }: Watched, url: string): void {
  expect(complaints).toEqual([])
  const foreign = requests.filter((asked) => !asked.startsWith(url) && !/^(blob|data):/.test(asked))
  expect(foreign).toEqual([])
}

interface Fixtures {
  /** The page of the fleet, opened on the Speak screen; what it does is watched. */
  opened: Page
}

export const test = base.extend<Fixtures, { fleet: RunningFleet }>({
  fleet: [
    // biome-ignore lint/correctness/noEmptyPattern: Playwright wants a pattern
    async ({}, use) => {
      const fleet = await RunningFleet.start()
      await use(fleet)
      await fleet.close()
    },
    { scope: "worker" },
  ],
  opened: async ({ page, fleet }, use) => {
    const watched = watch(page)
    await page.goto(fleet.url)
    await expect(page.getByLabel("Text to speak")).toBeVisible()
    await use(page)
    expectQuiet(watched, fleet.url)
  },
})

export { expect }
