// The seed: drawn anew each time, or locked so that the same sound is made again.
import { useId } from "react"
import { IconButton } from "~/components/buttons"
import { current, useDrafts } from "~/stores/drafts"

export function SeedField() {
  const { seed, seedLocked } = useDrafts((drafts) => current(drafts).settings)
  const change = useDrafts((drafts) => drafts.change)
  const id = useId()
  const draw = () => change({ seed: crypto.getRandomValues(new Uint32Array(1))[0] ?? 0, seedLocked: true })
  return (
    <div className="flex flex-col gap-1">
      <label htmlFor={id} className="text-sm font-medium">
        Seed
      </label>
      <div className="flex items-center gap-1">
        <input
          id={id}
          inputMode="numeric"
          pattern="[0-9]*"
          className="min-h-10 w-full min-w-0 rounded-lg border border-line-strong/60 bg-surface px-3 font-mono placeholder:font-sans placeholder:text-soft"
          placeholder="Drawn anew each time"
          aria-describedby={`${id}-hint`}
          value={seed ?? ""}
          onChange={(event) => {
            const digits = event.target.value.replace(/\D/g, "").slice(0, 15)
            change(digits ? { seed: Number(digits), seedLocked: true } : { seed: null, seedLocked: false })
          }}
        />
        <IconButton
          icon={seedLocked ? "lock" : "unlock"}
          label={seedLocked ? "The seed is locked: the same sound again" : "Lock this seed"}
          pressed={seedLocked}
          disabled={seed === null}
          onClick={() => change({ seedLocked: !seedLocked })}
        />
        <IconButton icon="dice" label="Draw a seed" onClick={draw} />
      </div>
      <p id={`${id}-hint`} className="text-sm text-soft">
        {seedLocked
          ? "Locked: the same text and settings give the same sound."
          : "Each generation sounds a little different."}
      </p>
    </div>
  )
}
