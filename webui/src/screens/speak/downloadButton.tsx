// A take as a file, in the format that is chosen.

import { useState } from "react"
import { Refused } from "~/api/errors"
import type { AudioFormat } from "~/api/types"
import { filenameOf, fileOf, save } from "~/audio/files"
import { Button } from "~/components/buttons"
import { current, useDrafts } from "~/stores/drafts"
import { showError } from "~/stores/notices"
import { type Take, useTakes } from "~/stores/takes"

export const FORMATS: { format: AudioFormat; name: string; ending: string }[] = [
  { format: "mp3", name: "MP3", ending: "mp3" },
  { format: "wav", name: "WAV, lossless", ending: "wav" },
  { format: "flac", name: "FLAC, lossless and smaller", ending: "flac" },
  { format: "opus", name: "Opus, small", ending: "ogg" },
  { format: "aac", name: "AAC", ending: "aac" },
  { format: "pcm", name: "PCM, bare samples", ending: "pcm" },
]

export function DownloadButton({ take, small }: { take: Take; small?: boolean }) {
  const format = useDrafts((drafts) => current(drafts).settings.format)
  const [busy, setBusy] = useState(false)
  const chosen = FORMATS.find((known) => known.format === format) ?? FORMATS[0]
  if (!chosen) return null

  async function download() {
    setBusy(true)
    try {
      const sound = await useTakes.getState().soundOf(take.id)
      if (!sound) throw new Refused("This take's sound is no longer kept in this browser.")
      save(await fileOf(sound.samples(), format), filenameOf(take.text, chosen?.ending ?? format))
    } catch (error) {
      showError(error)
    } finally {
      setBusy(false)
    }
  }

  return (
    <Button icon="download" small={small ?? false} disabled={busy} onClick={() => void download()}>
      {busy ? "Encoding…" : `Download ${chosen.name.split(",")[0]}`}
    </Button>
  )
}
