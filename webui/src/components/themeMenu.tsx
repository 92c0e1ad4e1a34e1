// Light, dark, or as the system has it.
import { type Theme, usePreferences } from "~/stores/preferences"
import { IconButton } from "./buttons"
import type { IconName } from "./icons"

const THEMES: { theme: Theme; icon: IconName; label: string }[] = [
  { theme: "system", icon: "system", label: "Colours: as the system" },
  { theme: "light", icon: "sun", label: "Colours: light" },
  { theme: "dark", icon: "moon", label: "Colours: dark" },
]

export function ThemeMenu() {
  const { theme, setTheme } = usePreferences()
  const at = THEMES.findIndex((known) => known.theme === theme)
  const next = THEMES[(at + 1) % THEMES.length] ?? THEMES[0]
  return (
    <>
      <div className="lg:hidden">
        <IconButton
          icon={THEMES[at]?.icon ?? "system"}
          label={`${THEMES[at]?.label}. Change`}
          onClick={() => next && setTheme(next.theme)}
        />
      </div>
      <fieldset className="hidden gap-1 lg:flex">
        <legend className="sr-only">Colours</legend>
        {THEMES.map(({ theme: offered, icon, label }) => (
          <IconButton
            key={offered}
            icon={icon}
            label={label}
            pressed={offered === theme}
            onClick={() => setTheme(offered)}
          />
        ))}
      </fieldset>
    </>
  )
}
