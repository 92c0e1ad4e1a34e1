// @vitest-environment node
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { afterEach, expect, it } from "vitest"
import { ApiError, Unreachable } from "./errors"
import { api, bodyOf, tell } from "./http"

const told: string[] = []
let key = ""
tell({
  key: () => key,
  answered: () => told.push("answered"),
  unanswered: () => told.push("unanswered"),
  keyWanted: () => told.push("key wanted"),
})

let server: Server

afterEach(() => {
  server.closeAllConnections()
  server.close()
  told.length = 0
  key = ""
})

async function ask(answer: Parameters<typeof createServer>[1]) {
  server = createServer(answer as never)
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return bodyOf(api.GET("/health", { baseUrl })).catch((error: unknown) => error)
}

it("takes a body that breaks off for a server that does not answer", async () => {
  const error = await ask((_, answer) => {
    answer.writeHead(200, { "content-type": "application/json", "content-length": "100" })
    answer.write('{"status":')
    setTimeout(() => answer.destroy(), 20)
  })
  expect(error).toBeInstanceOf(Unreachable)
})

it("says of a page that stands in the place of the fleet's answer that it is none", async () => {
  const error = await ask((_, answer) => answer.end("<h1>Log in to this network</h1>"))
  expect(error).toBeInstanceOf(ApiError)
  expect((error as ApiError).message).toContain("not the fleet's")
})

it("does not take what is in front of a balancer that is away for the balancer", async () => {
  await ask((_, answer) => answer.writeHead(502).end('{"error": {"code": "upstream_failed", "message": "away"}}'))
  expect(told).toEqual([])
})

it("asks for a key only where the one that is held was refused", async () => {
  const refused = '{"error": {"code": "invalid_api_key", "message": "not known"}}'
  key = "old"
  await ask((_, answer) => {
    key = "new" // given while the question with the old one was on its way
    answer.writeHead(401).end(refused)
  })
  expect(told).not.toContain("key wanted")
  server.close()
  await ask((_, answer) => answer.writeHead(401).end(refused))
  expect(told).toContain("key wanted")
})
