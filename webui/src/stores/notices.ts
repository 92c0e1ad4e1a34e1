// Short messages at the edge of the page: what went wrong, and what can still be undone.
import { create } from "zustand"
import { inWords } from "~/api/errors"

export interface Notice {
  id: number
  tone: "info" | "bad"
  title: string
  detail?: string
  requestId?: string | null
  action?: { label: string; run: () => void }
  /** Called when it goes without its action having been taken. */
  onExpire?: () => void
}

interface Notices {
  notices: Notice[]
  show: (notice: Omit<Notice, "id">, forMs?: number) => number
  dismiss: (id: number) => void
}

let lastId = 0
const timers = new Map<number, ReturnType<typeof setTimeout>>()

export const useNotices = create<Notices>()((set, get) => ({
  notices: [],
  show: (notice, forMs = 8_000) => {
    const id = ++lastId
    set(({ notices }) => ({ notices: [...notices, { ...notice, id }] }))
    timers.set(
      id,
      setTimeout(() => get().dismiss(id), forMs),
    )
    return id
  },
  dismiss: (id) => {
    clearTimeout(timers.get(id))
    timers.delete(id)
    const notice = get().notices.find((shown) => shown.id === id)
    set(({ notices }) => ({ notices: notices.filter((shown) => shown.id !== id) }))
    notice?.onExpire?.()
  },
}))

/** Shows an error in plain words. */
export function showError(error: unknown): void {
  if ((error as Error)?.name === "AbortError") return
  const { title, detail, requestId } = inWords(error)
  useNotices.getState().show({ tone: "bad", title, detail, requestId }, 15_000)
}

const UNDO_MS = 7_000

/** Says what was done, and offers to undo it for a while. */
export function offerUndo(title: string, undo: () => void): void {
  const run = () => {
    undo()
    useNotices.getState().dismiss(id)
  }
  const id = useNotices.getState().show({ tone: "info", title, action: { label: "Undo", run } }, UNDO_MS)
}

/** Says what is about to be done and does it when nobody has undone it in time, or the page is left. */
export function undoable(title: string, act: () => void, undo: () => void): void {
  let settled = false
  const settle = () => {
    if (settled) return
    settled = true
    removeEventListener("pagehide", settle)
    act()
  }
  addEventListener("pagehide", settle)
  const id = useNotices.getState().show(
    {
      tone: "info",
      title,
      action: {
        label: "Undo",
        run: () => {
          if (settled) return
          settled = true
          removeEventListener("pagehide", settle)
          undo()
          useNotices.getState().dismiss(id)
        },
      },
      onExpire: settle,
    },
    UNDO_MS,
  )
}
