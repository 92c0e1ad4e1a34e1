// Language tags in words.

let names: Intl.DisplayNames | null | undefined

/** "British English" for "en-gb"; the tag itself where it is none that is known. */
export function languageName(tag: string): string {
  try {
    names ??= new Intl.DisplayNames("en", { type: "language" })
    return names.of(tag.replaceAll("_", "-")) ?? tag
  } catch {
    return tag
  }
}
