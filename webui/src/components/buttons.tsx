// Buttons: with words, and with a pictogram whose words only a screen reader hears.
import type { ButtonHTMLAttributes } from "react"
import { Icon, type IconName } from "./icons"

const TONES = {
  accent: "bg-accent text-on-accent hover:bg-accent-strong border-transparent",
  plain: "bg-surface text-ink border-line-strong/50 hover:bg-raised",
  quiet: "bg-transparent text-ink border-transparent hover:bg-raised",
  bad: "bg-bad-wash text-bad border-transparent hover:brightness-95",
} as const

export interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  tone?: keyof typeof TONES
  icon?: IconName
  small?: boolean
}

export function Button({ tone = "plain", icon, small, className = "", children, ...rest }: ButtonProps) {
  return (
    <button
      type="button"
      className={`inline-flex items-center justify-center gap-2 rounded-lg border font-medium transition-colors disabled:cursor-not-allowed disabled:opacity-55 ${
        small ? "min-h-9 px-2.5 text-sm" : "min-h-10 px-4"
      } ${TONES[tone]} ${className}`}
      {...rest}
    >
      {icon && <Icon name={icon} />}
      {children}
    </button>
  )
}

export interface IconButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  icon: IconName
  /** What it does: its accessible name, and its tooltip. */
  label: string
  tone?: keyof typeof TONES
  pressed?: boolean
  filled?: boolean
}

export function IconButton({ icon, label, tone = "quiet", pressed, filled, className = "", ...rest }: IconButtonProps) {
  return (
    <button
      type="button"
      aria-label={label}
      title={label}
      aria-pressed={pressed}
      className={`inline-flex size-9 shrink-0 items-center justify-center rounded-lg border transition-colors disabled:cursor-not-allowed disabled:opacity-50 ${
        pressed ? "border-transparent bg-accent-wash text-accent" : TONES[tone]
      } ${className}`}
      {...rest}
    >
      <Icon name={icon} filled={filled ?? false} />
    </button>
  )
}
