// Plays a short sample in place, or stops it.
import { usePreviews } from "~/stores/previews"
import { IconButton } from "./buttons"

interface PreviewButtonProps {
  /** Names the sample: the same key is fetched once. */
  id: string
  label: string
  fetch: () => Promise<Blob>
  className?: string
  tabIndex?: number
}

export function PreviewButton({ id, label, fetch, className = "", tabIndex }: PreviewButtonProps) {
  const { current, loading, toggle } = usePreviews()
  const active = current === id
  return (
    <IconButton
      tabIndex={tabIndex}
      icon={active ? "stop" : "play"}
      label={active ? `Stop ${label}` : `Play ${label}`}
      aria-busy={active && loading}
      className={`${active && loading ? "animate-pulse" : ""} ${className}`}
      onClick={() => void toggle(id, fetch)}
    />
  )
}
