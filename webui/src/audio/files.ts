// A take as a file: WAV and bare PCM are made here, the others by the fleet's own encoders.

import { api, bodyOf } from "~/api/http"
import type { AudioFormat } from "~/api/types"
import { wavOf } from "./sound"

export async function fileOf(samples: Int16Array, format: AudioFormat): Promise<Blob> {
  const raw = new Blob([samples as BlobPart], { type: "audio/pcm" })
  if (format === "pcm") return raw
  if (format === "wav") return wavOf(samples)
  return await bodyOf(
    api.POST(
      "/encode" as never,
      {
        params: { query: { format } },
        headers: { "Content-Type": "audio/pcm" },
        body: raw,
        bodySerializer: (body: unknown) => body as Blob,
        parseAs: "blob",
      } as never,
    ) as Promise<{ data?: Blob }>,
  )
}

/** Offers a blob as a file. */
export function save(blob: Blob, filename: string): void {
  const link = document.createElement("a")
  link.href = URL.createObjectURL(blob)
  link.download = filename
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
}

/** A file's name from the text that it speaks. */
export function filenameOf(text: string, ending: string): string {
  const words = text
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 48)
    .replace(/-+$/, "")
  return `${words || "speech"}.${ending}`
}
