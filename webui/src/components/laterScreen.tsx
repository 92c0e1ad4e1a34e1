// Screens that come after the first: fetched soon after it, so that they are at hand when the server is away.
import { type ComponentType, useEffect, useState } from "react"
import { useConnection } from "~/stores/connection"
import { Button } from "./buttons"

type Load = () => Promise<{ default: ComponentType }>

const loaded = new Map<Load, ComponentType>()

async function fetched(load: Load): Promise<ComponentType> {
  const screen = loaded.get(load) ?? (await load()).default
  loaded.set(load, screen)
  return screen
}

/** Fetches screens that have not been shown yet; what fails is tried again when it is shown. */
export function fetchLater(loads: readonly Load[], delayMs = 1_500): void {
  setTimeout(() => loads.forEach((load) => void fetched(load).catch(() => undefined)), delayMs)
}

export function LaterScreen({ load }: { load: Load }) {
  const [screen, setScreen] = useState<{ shown: ComponentType } | null>(() => held(load))
  const [failed, setFailed] = useState(false)
  const status = useConnection(({ status }) => status)

  // biome-ignore lint/correctness/useExhaustiveDependencies: tried again when the server is back
  useEffect(() => {
    let over = false
    fetched(load)
      .then((shown) => !over && setScreen({ shown }))
      .catch(() => !over && setFailed(true))
    return () => {
      over = true
    }
  }, [load, status])

  if (screen) return <screen.shown />
  if (!failed) return <p className="text-soft">Loading…</p>
  return (
    <div role="alert" className="flex flex-col items-start gap-3 rounded-xl bg-warn-wash p-4">
      <p>This part of the page could not be fetched from the server. Your drafts are kept.</p>
      <Button icon="reset" onClick={() => location.reload()}>
        Load the page again
      </Button>
    </div>
  )
}

function held(load: Load) {
  const shown = loaded.get(load)
  return shown ? { shown } : null
}
