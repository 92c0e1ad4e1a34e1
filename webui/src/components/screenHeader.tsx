// What stands above a list: its name, a search in it, what can be added; and what kept it from being read.
import type { ReactNode } from "react"
import type { Trouble } from "~/api/errors"
import { Button } from "./buttons"
import { TroubleNote } from "./troubleNote"

interface ScreenHeaderProps {
  title: string
  search: string
  onSearch: (search: string) => void
  /** The button that adds to the list. */
  children: ReactNode
}

export function ScreenHeader({ title, search, onSearch, children }: ScreenHeaderProps) {
  return (
    <div className="flex flex-wrap items-center gap-3">
      <h1 className="mr-auto text-2xl font-semibold">{title}</h1>
      <input
        type="search"
        aria-label={`Search the ${title.toLowerCase()}`}
        placeholder="Search"
        className="min-h-10 w-full rounded-lg border border-line-strong/60 bg-surface px-3 placeholder:text-soft sm:w-64"
        value={search}
        onChange={(event) => onSearch(event.target.value)}
      />
      {children}
    </div>
  )
}

interface ReadingProps {
  loaded: boolean
  trouble: Trouble | null
  onRetry: () => void
}

/** Nothing once the list has been read without trouble. */
export function Reading({ loaded, trouble, onRetry }: ReadingProps) {
  if (trouble) {
    return (
      <TroubleNote trouble={trouble}>
        <Button small onClick={onRetry}>
          Try again
        </Button>
      </TroubleNote>
    )
  }
  return loaded ? null : <p className="text-soft">Loading…</p>
}
