// Where short messages appear; screen readers hear them as they come. A part of the body of its own, beside the page:
// what is in the page cannot be used, and is not read out, while a window is open over it.
import { createPortal } from "react-dom"
import { useNotices } from "~/stores/notices"
import { Button, IconButton } from "./buttons"

export function Notices() {
  const { notices, dismiss } = useNotices()
  return createPortal(
    <section
      aria-label="Messages"
      aria-live="polite"
      className="pointer-events-none fixed inset-x-0 bottom-20 z-50 flex flex-col items-center gap-2 px-3 lg:bottom-6"
    >
      {notices.map(({ id, tone, title, detail, requestId, action }) => (
        <div
          key={id}
          role={tone === "bad" ? "alert" : "status"}
          className={`pointer-events-auto flex w-full max-w-xl items-start gap-3 rounded-xl border bg-surface p-3 pl-4 shadow-lg ${
            tone === "bad" ? "border-bad" : "border-line"
          }`}
        >
          <div className="min-w-0 flex-1 self-center">
            <p className={`font-medium break-words ${tone === "bad" ? "text-bad" : ""}`}>{title}</p>
            {detail && <p className="text-sm break-words text-soft">{detail}</p>}
            <RequestId id={requestId ?? null} />
          </div>
          {action && (
            <Button small onClick={action.run}>
              {action.label}
            </Button>
          )}
          <IconButton icon="close" label="Dismiss" onClick={() => dismiss(id)} />
        </div>
      ))}
    </section>,
    document.body,
  )
}

/** What the server's log has a failure under. */
export function RequestId({ id }: { id: string | null }) {
  if (!id) return null
  return (
    <p className="text-xs text-soft">
      Request id <code className="font-mono break-all select-all">{id}</code>
    </p>
  )
}
