// What is known of recordings before they are sent; the fleet's word on them is final.

/** Bytes of one voice's recordings together: what the fleet takes unless it was told otherwise. */
const LARGEST = 50 * 2 ** 20
const KINDS = /\.(wav|mp3|flac|ogg|oga|opus|m4a|mp4|webm)$/i

export interface NewRecording {
  id: string
  blob: Blob
  filename: string
}

/** Why these recordings will be refused, in plain words; null where nothing speaks against them. */
export function whyUnfit(recordings: readonly Pick<NewRecording, "blob" | "filename">[]): string | null {
  const foreign = recordings.find(({ blob, filename }) => !KINDS.test(filename) && !/^(audio|video)\//.test(blob.type))
  if (foreign) return `${foreign.filename} is no recording: WAV, MP3, FLAC, OGG, M4A and WebM are taken.`
  const empty = recordings.find(({ blob }) => blob.size === 0)
  if (empty) return `${empty.filename} is empty.`
  if (recordings.reduce((sum, { blob }) => sum + blob.size, 0) > LARGEST) {
    return "Together they hold more than 50 MiB: choose shorter ones. Ten seconds of clear speech are enough."
  }
  return null
}

/** A voice's name from its recording's: without the ending, with spaces. */
export function nameFrom(filename: string): string {
  const stem = filename
    .replace(/\.[^.]+$/, "")
    .replace(/[_-]+/g, " ")
    .trim()
  return stem.charAt(0).toUpperCase() + stem.slice(1)
}

/** Aliases as they are typed: separated by commas. */
export function aliasesFrom(typed: string): string[] {
  return [
    ...new Set(
      typed
        .split(",")
        .map((alias) => alias.trim())
        .filter(Boolean),
    ),
  ]
}
