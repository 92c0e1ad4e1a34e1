// Fields of forms: a label, a control, a hint, and what is wrong, tied together for screen readers.
import { type InputHTMLAttributes, type ReactNode, type SelectHTMLAttributes, useId } from "react"

const CONTROL =
  "w-full rounded-lg border border-line-strong/60 bg-surface px-3 text-ink placeholder:text-soft aria-invalid:border-bad disabled:opacity-60"

interface Common {
  label: string
  hint?: ReactNode
  /** What is wrong with the value, where something is. */
  error?: string | null
}

function Labelled({ label, hint, error, children }: Common & { children: (attributes: Attributes) => ReactNode }) {
  const id = useId()
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ")
  return (
    <div className="flex flex-col gap-1">
      <label htmlFor={id} className="text-sm font-medium">
        {label}
      </label>
      {children({ id, "aria-invalid": error ? true : undefined, "aria-describedby": described || undefined })}
      {hint && (
        <p id={`${id}-hint`} className="text-sm text-soft">
          {hint}
        </p>
      )}
      {error && (
        <p id={`${id}-error`} className="text-sm text-bad">
          {error}
        </p>
      )}
    </div>
  )
}

interface Attributes {
  id: string
  "aria-invalid": true | undefined
  "aria-describedby": string | undefined
}

export function TextField({ label, hint, error, ...rest }: Common & InputHTMLAttributes<HTMLInputElement>) {
  return (
    <Labelled label={label} hint={hint} error={error ?? null}>
      {(attributes) => <input className={`${CONTROL} min-h-10`} {...attributes} {...rest} />}
    </Labelled>
  )
}

export function Select({ label, hint, error, children, ...rest }: Common & SelectHTMLAttributes<HTMLSelectElement>) {
  return (
    <Labelled label={label} hint={hint} error={error ?? null}>
      {(attributes) => (
        <select className={`${CONTROL} min-h-10`} {...attributes} {...rest}>
          {children}
        </select>
      )}
    </Labelled>
  )
}
