// A failure said in place, with what can be done about it.
import type { ReactNode } from "react"
import type { Trouble } from "~/api/errors"
import { RequestId } from "./notices"

export function TroubleNote({ trouble, children }: { trouble: Trouble; children?: ReactNode }) {
  return (
    <div role="alert" className="rounded-xl bg-bad-wash p-4">
      <p className="font-medium text-bad">{trouble.title}</p>
      <p className="text-sm break-words">{trouble.detail}</p>
      <RequestId id={trouble.requestId} />
      {children && <div className="mt-3 flex flex-wrap gap-2">{children}</div>}
    </div>
  )
}
