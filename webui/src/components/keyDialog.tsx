// Asks for the fleet's key when it wants one. The key stays in this browser.
import { useState } from "react"
import { canBeKey, useConnection } from "~/stores/connection"
import { useLibrary } from "~/stores/library"
import { Button } from "./buttons"
import { Dialog } from "./dialog"
import { TextField } from "./fields"

export function KeyDialog() {
  const { keyWanted, key, setKey, dismissKey } = useConnection()
  const [typed, setTyped] = useState("")
  const odd = typed.trim() !== "" && !canBeKey(typed)
  return (
    <Dialog open={keyWanted !== null} title="The fleet's key" onClose={dismissKey}>
      <form
        className="flex flex-col gap-4"
        onSubmit={(event) => {
          event.preventDefault()
          setKey(typed)
          setTyped("")
          void useLibrary.getState().refresh()
        }}
      >
        <TextField
          label="API key"
          type="password"
          autoComplete="current-password"
          autoFocus
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
          error={
            odd
              ? "A key has no spaces, and only plain letters, digits and signs."
              : key && keyWanted
                ? "This key is not known to the fleet."
                : null
          }
          hint="It is kept in this browser and sent to this server only. Whoever runs the fleet hands it out."
        />
        <div className="flex justify-end gap-2">
          {key && (
            <Button tone="quiet" onClick={() => setKey("")}>
              Forget the key
            </Button>
          )}
          <Button tone="accent" type="submit" disabled={!canBeKey(typed)}>
            Use this key
          </Button>
        </div>
      </form>
    </Dialog>
  )
}
