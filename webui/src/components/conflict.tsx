// Two versions of one thing, field by field; of each one is kept: at first mine where I have changed it, and else theirs.
import { useState } from "react"
import { differing, merged, same } from "~/stores/versions"
import { Button } from "./buttons"

interface ConflictProps<T extends object> {
  fields: readonly { name: keyof T & string; label: string }[]
  /** As it was before either changed it. */
  before: T
  mine: T
  theirs: T
  /** A field's value for a person. */
  said: (version: T, name: keyof T) => string
  busy: boolean
  onSave: (chosen: T) => void
  onTheirs: () => void
}

export function Conflict<T extends object>(props: ConflictProps<T>) {
  const { fields, before, mine, theirs, said, busy, onSave, onTheirs } = props
  const [keepMine, setKeepMine] = useState<ReadonlySet<keyof T>>(() => new Set(differing(before, mine)))
  const choose = (name: keyof T, isMine: boolean) =>
    setKeepMine((now) => new Set(isMine ? [...now, name] : [...now].filter((other) => other !== name)))

  return (
    <div className="flex flex-col gap-4">
      <p className="text-sm text-soft">
        While you were editing, this was changed elsewhere. Choose of each field that differs which to keep.
      </p>
      <table className="w-full table-fixed text-left text-sm">
        <caption className="sr-only">Both versions, field by field</caption>
        <thead className="text-soft">
          <tr>
            <th scope="col" className="w-32 py-1 font-normal">
              Field
            </th>
            <th scope="col" className="py-1 font-normal">
              Yours
            </th>
            <th scope="col" className="py-1 font-normal">
              Theirs
            </th>
          </tr>
        </thead>
        <tbody>
          {fields
            .filter(({ name }) => !same(mine[name], theirs[name]) || name === "name")
            .map(({ name, label }) => {
              const differs = !same(mine[name], theirs[name])
              return (
                <tr key={name} className={differs ? "bg-warn-wash" : "text-soft"}>
                  <th scope="row" className="px-2 py-1.5 font-normal">
                    {label}
                  </th>
                  {[true, false].map((isMine) => (
                    <td key={String(isMine)} className="px-2 py-1.5 align-top break-words">
                      {differs ? (
                        <label className="flex items-start gap-2">
                          <input
                            type="radio"
                            className="mt-1 accent-accent"
                            name={`keep-${name}`}
                            checked={keepMine.has(name) === isMine}
                            onChange={() => choose(name, isMine)}
                          />
                          <span>
                            <span className="sr-only">{`${label}, ${isMine ? "yours" : "theirs"}: `}</span>
                            {said(isMine ? mine : theirs, name)}
                          </span>
                        </label>
                      ) : (
                        said(mine, name)
                      )}
                    </td>
                  ))}
                </tr>
              )
            })}
        </tbody>
      </table>
      <div className="flex flex-wrap justify-end gap-2">
        <Button onClick={onTheirs}>Go on from theirs</Button>
        <Button tone="accent" disabled={busy} onClick={() => onSave(merged(mine, theirs, keepMine))}>
          Save what is chosen
        </Button>
      </div>
    </div>
  )
}
