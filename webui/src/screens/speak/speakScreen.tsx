// Speak: a text, how to speak it, its sound while it arrives, and what was spoken before.
import { useEffect } from "react"
import { current, useDrafts } from "~/stores/drafts"
import { usePlayer } from "~/stores/player"
import { useSpeaking } from "~/stores/speaking"
import { useTakes } from "~/stores/takes"
import { Editor } from "./editor"
import { generate, whyNot } from "./generating"
import { History } from "./history"
import { PlayerPanel } from "./playerPanel"
import { SettingsPanel } from "./settingsPanel"

export function SpeakScreen() {
  useShortcuts()
  useEffect(() => {
    if (!useTakes.getState().takes.some(({ state }) => state !== "arriving")) void useTakes.getState().load()
  }, [])
  return (
    <div className="grid items-start gap-6 xl:grid-cols-[minmax(0,1fr)_24rem] xl:grid-rows-[auto_1fr] 2xl:grid-cols-[minmax(0,1fr)_28rem]">
      <h1 className="sr-only">Speak</h1>
      <div className="flex min-w-0 flex-col gap-6">
        <Editor />
        <PlayerPanel />
      </div>
      <div className="min-w-0 xl:col-start-2 xl:row-span-2 xl:row-start-1">
        <SettingsPanel />
      </div>
      <div className="min-w-0">
        <History />
      </div>
    </div>
  )
}

/** Ctrl+Enter (or Cmd) generates from anywhere on the screen, Escape stops what is made, then what is heard. */
function useShortcuts() {
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.defaultPrevented || (event.target as Element).closest?.("[role=dialog]")) return
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault()
        if (whyNot(current(useDrafts.getState()).text) === null) generate()
      } else if (event.key === "Escape" && !isListOpen(event.target as Element)) {
        if (useSpeaking.getState().status !== "idle") useSpeaking.getState().stop()
        else usePlayer.getState().pause()
      }
    }
    addEventListener("keydown", onKey)
    return () => removeEventListener("keydown", onKey)
  }, [])
}

/** Escape closes a list first. */
function isListOpen(target: Element): boolean {
  return target.getAttribute?.("aria-expanded") === "true" || target.closest?.("[role=menu], [role=listbox]") !== null
}
