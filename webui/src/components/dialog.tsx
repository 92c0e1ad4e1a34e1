// A window over the page that keeps the keyboard inside it and gives the focus back.
import { Dialog as Base, DialogBackdrop, DialogPanel, DialogTitle } from "@headlessui/react"
import type { ReactNode } from "react"
import { IconButton } from "./buttons"

interface DialogProps {
  open: boolean
  title: string
  wide?: boolean
  onClose: () => void
  children: ReactNode
}

export function Dialog({ open, title, wide, onClose, children }: DialogProps) {
  return (
    <Base open={open} onClose={onClose} className="relative z-40">
      <DialogBackdrop className="fixed inset-0 bg-black/45" />
      <div className="fixed inset-0 overflow-y-auto">
        <div className="flex min-h-full items-end justify-center p-0 sm:items-center sm:p-6">
          <DialogPanel
            className={`w-full rounded-t-2xl bg-surface p-5 shadow-xl sm:rounded-2xl sm:p-6 ${wide ? "sm:max-w-3xl" : "sm:max-w-lg"}`}
          >
            <div className="mb-4 flex items-start justify-between gap-4">
              <DialogTitle className="text-lg font-semibold">{title}</DialogTitle>
              <IconButton icon="close" label="Close" onClick={onClose} />
            </div>
            {children}
          </DialogPanel>
        </div>
      </div>
    </Base>
  )
}
