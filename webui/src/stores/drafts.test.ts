import { beforeEach, expect, it } from "vitest"
import { current, exported, INITIAL, newDraft, requestOf, useDrafts } from "./drafts"

beforeEach(() => {
  const draft = newDraft("One", { text: "first" })
  useDrafts.setState({ drafts: [draft], currentId: draft.id })
})

const state = () => useDrafts.getState()

it("asks for nothing that was not chosen", () => {
  expect(requestOf("Hello", INITIAL)).toEqual({ text: "Hello" })
  const chosen = { ...INITIAL, voice: "anna", speed: 1.5, seed: 7, parameters: { exaggeration: 0 } }
  expect(requestOf("Hello", chosen)).toEqual({ text: "Hello", voice: "anna", speed: 1.5, exaggeration: 0 })
  expect(requestOf("Hello", { ...chosen, seedLocked: true })).toMatchObject({ seed: 7 })
})

it("edits the draft that is open and no other", () => {
  state().create("Two")
  state().setText("second")
  state().change({ speed: 2 })
  expect(state().drafts.map(({ name, text, settings }) => [name, text, settings.speed])).toEqual([
    ["Two", "second", 2],
    ["One", "first", 1],
  ])
})

it("puts a deleted draft back where it was, and is never without one", () => {
  state().create("Two", { text: "second" })
  const putBack = state().remove(current(state()).id)
  expect(current(state()).name).toBe("One")
  state().remove(current(state()).id)
  expect(state().drafts).toHaveLength(1)
  expect(current(state()).text).toBe("")
  putBack()
  expect(current(state()).text).toBe("second")
})

it("takes over what another tab has written, writes nothing itself, and keeps its own draft open", () => {
  const [mine, theirs] = [current(state()), newDraft("Theirs", { text: "typed there" })]
  const written = JSON.stringify({ state: { drafts: [theirs, mine], currentId: theirs.id }, version: 1 })
  localStorage.setItem("fleet.drafts", written)
  dispatchEvent(new StorageEvent("storage", { key: "fleet.drafts", newValue: written }))
  expect(state().drafts.map(({ text }) => text)).toEqual(["typed there", "first"])
  expect(state().currentId).toBe(mine.id)
  expect(localStorage.getItem("fleet.drafts")).toBe(written)
})

it("reads back what it exports, as new drafts", () => {
  state().change({ voice: "anna", parameters: { temperature: 1.2 }, seed: 3, seedLocked: true })
  const file = exported(state().drafts)
  expect(state().importFrom(file)).toBe(1)
  const [read, original] = state().drafts
  expect(read?.settings).toEqual(original?.settings)
  expect(read?.id).not.toBe(original?.id)
})

it.each([
  ["{", "not JSON"],
  ["{}", "no drafts"],
  ["null", "no drafts"],
  ['{"kind": "chatterbox-fleet-drafts", "drafts": [{"name": 1}]}', "Draft 1"],
  ['{"kind": "chatterbox-fleet-drafts", "drafts": [null]}', "Draft 1"],
])("refuses a file that is none: %s", (file, said) => {
  expect(() => state().importFrom(file)).toThrow(said)
  expect(state().drafts).toHaveLength(1)
})

it("takes defaults for settings that are not as they should be", () => {
  const settings = { voice: 5, speed: 99, seed: -1, format: "exe", parameters: { exaggeration: "loud", evil: 1 } }
  const file = { kind: "chatterbox-fleet-drafts", drafts: [{ name: "Odd", text: "text", settings }] }
  state().importFrom(JSON.stringify(file))
  expect(current(state()).settings).toEqual(INITIAL)
})

it("takes no fraction for a count, nor spaces for a name: the fleet would refuse the one, nobody could see the other", () => {
  const settings = { seed: 1.5, parameters: { top_k: 40.5, temperature: 1.5 } }
  const file = { kind: "chatterbox-fleet-drafts", drafts: [{ name: "  ", text: "text", settings }] }
  state().importFrom(JSON.stringify(file))
  expect(current(state()).name).toBe("Draft 1")
  expect(current(state()).settings).toEqual({ ...INITIAL, parameters: { temperature: 1.5 } })
})
