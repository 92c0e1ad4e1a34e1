// The frame of the page: where to go, how the fleet is, and the screen that is shown.
import { useEffect, useRef } from "react"
import { Icon, type IconName } from "~/components/icons"
import { KeyDialog } from "~/components/keyDialog"
import { LastResort } from "~/components/lastResort"
import { fetchLater, LaterScreen } from "~/components/laterScreen"
import { Notices } from "~/components/notices"
import { ServerState } from "~/components/serverState"
import { ThemeMenu } from "~/components/themeMenu"
import { SpeakScreen } from "~/screens/speak/speakScreen"
import { useConnection } from "~/stores/connection"
import { type Screen, useRoute } from "~/stores/route"

const LATER = {
  voices: () => import("~/screens/voices/voicesScreen"),
  emotions: () => import("~/screens/emotions/emotionsScreen"),
  fleet: () => import("~/screens/fleet/fleetScreen"),
}

const PLACES: { screen: Screen; name: string; icon: IconName }[] = [
  { screen: "speak", name: "Speak", icon: "speak" },
  { screen: "voices", name: "Voices", icon: "voices" },
  { screen: "emotions", name: "Emotions", icon: "emotions" },
  { screen: "fleet", name: "Fleet", icon: "fleet" },
]

export function App() {
  const screen = useRoute((route) => route.screen)
  const main = useRef<HTMLElement>(null)
  const place = PLACES.find((known) => known.screen === screen)
  useTitleAndFocus(place?.name ?? "", main)
  useEffect(() => fetchLater(Object.values(LATER)), [])

  return (
    <div className="min-h-dvh lg:grid lg:grid-cols-[14rem_1fr]">
      <button
        type="button"
        className="sr-only focus:not-sr-only focus:fixed focus:top-2 focus:left-2 focus:z-50 focus:rounded-lg focus:bg-surface focus:p-2"
        onClick={() => main.current?.focus()}
      >
        Skip to the content
      </button>
      <header className="flex items-center justify-between gap-2 border-b border-line bg-surface px-4 py-2 lg:sticky lg:top-0 lg:h-dvh lg:flex-col lg:items-stretch lg:justify-start lg:gap-6 lg:border-r lg:border-b-0 lg:p-4">
        <p className="flex items-center gap-2 font-semibold">
          <img src="/ui/icon.svg" alt="" className="size-7" />
          Chatterbox Fleet
        </p>
        <nav
          aria-label="Screens"
          className="fixed inset-x-0 bottom-0 z-30 border-t border-line bg-surface lg:static lg:border-0"
        >
          <ul className="grid grid-cols-4 gap-1 p-1 lg:flex lg:flex-col lg:p-0">
            {PLACES.map(({ screen: to, name, icon }) => (
              <li key={to}>
                <a
                  href={`#/${to}`}
                  aria-current={to === screen ? "page" : undefined}
                  className="flex flex-col items-center gap-0.5 rounded-lg px-2 py-1.5 text-xs text-soft hover:bg-raised hover:text-ink aria-[current]:bg-accent-wash aria-[current]:font-medium aria-[current]:text-accent lg:flex-row lg:gap-3 lg:px-3 lg:py-2.5 lg:text-base"
                >
                  <Icon name={icon} />
                  {name}
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <div className="flex items-center gap-1 lg:mt-auto lg:flex-col lg:items-stretch lg:gap-3">
          <ServerState />
          <ThemeMenu />
        </div>
      </header>
      <div className="min-w-0 pb-20 lg:pb-0">
        <Banner />
        <main
          ref={main}
          id="main"
          tabIndex={-1}
          className="mx-auto w-full max-w-[112rem] p-4 outline-none sm:p-6 lg:p-8"
        >
          <LastResort key={screen}>
            {screen === "speak" ? <SpeakScreen /> : <LaterScreen key={screen} load={LATER[screen]} />}
          </LastResort>
        </main>
      </div>
      <KeyDialog />
      <Notices />
    </div>
  )
}

/** What everybody should know first: that nothing answers, or that it is not Chatterbox which speaks. */
function Banner() {
  const { status, health } = useConnection()
  if (status === "down") {
    return (
      <p role="status" className="bg-bad-wash px-4 py-2 text-center text-sm text-bad">
        The server does not answer. What you write is kept here; the page goes on trying.
      </p>
    )
  }
  if (health?.demo_voice) {
    return (
      <p className="bg-warn-wash px-4 py-2 text-center text-sm text-warn">
        This is the embedded demo voice ({health.engine.join(", ")}), not Chatterbox: it shows how everything works, not
        how it will sound.
      </p>
    )
  }
  return null
}

/** The document is called after the screen, and a new screen takes the focus, as a new page would. */
function useTitleAndFocus(name: string, main: React.RefObject<HTMLElement | null>) {
  const first = useRef(true)
  useEffect(() => {
    document.title = `${name} · Chatterbox Fleet`
    if (first.current) first.current = false
    else main.current?.focus()
  }, [name, main])
}
