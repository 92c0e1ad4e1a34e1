// When a text can be spoken, and that it is.
import { useConnection } from "~/stores/connection"
import { current, useDrafts } from "~/stores/drafts"
import { useSpeaking } from "~/stores/speaking"

/** Why a text cannot be spoken now; null where it can. */
export function whyNot(text: string): string | null {
  const { health, status } = useConnection.getState()
  const most = health?.max_text_chars
  const length = characters(text)
  if (!text.trim()) return "Write something first."
  if (most && length > most) {
    return `The text is ${(length - most).toLocaleString()} characters too long: at most ${most.toLocaleString()} are spoken at once.`
  }
  return status === "down" ? "The server does not answer." : null
}

export function generate(): void {
  const { text, settings } = current(useDrafts.getState())
  void useSpeaking.getState().generate(text, settings)
}

/** Unicode characters, as the fleet counts them; JavaScript counts those beyond U+FFFF twice. */
export function characters(text: string): number {
  let count = 0
  for (const _ of text) count += 1
  return count
}
