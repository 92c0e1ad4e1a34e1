// Files of plain text.
import { Refused } from "~/api/errors"

const LARGEST = 2 ** 20

/** A file's text, in UTF-8 or, with its mark, UTF-16. Throws `Refused` for what holds none. */
export async function textOf(file: File): Promise<string> {
  if (file.size > LARGEST) throw new Refused(`${file.name} is larger than 1 MiB: choose a shorter text.`)
  const bytes = new Uint8Array(await file.arrayBuffer())
  const encoding =
    bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : bytes[0] === 0xfe && bytes[1] === 0xff ? "utf-16be" : "utf-8"
  let text: string
  try {
    text = new TextDecoder(encoding, { fatal: true }).decode(bytes)
  } catch {
    throw new Refused(`${file.name} is not plain text in UTF-8: save it as text first.`)
  }
  if (text.includes("\0")) throw new Refused(`${file.name} is not plain text: save it as text first.`)
  return text.replace(/\r\n?/g, "\n").trim()
}
