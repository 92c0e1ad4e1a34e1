// Which draft is open, and what can be done with drafts.
import { Menu, MenuButton, MenuItem, MenuItems } from "@headlessui/react"
import { type ReactNode, useRef, useState } from "react"
import { save } from "~/audio/files"
import { Icon, type IconName } from "~/components/icons"
import { current, exported, useDrafts } from "~/stores/drafts"
import { offerUndo, showError, useNotices } from "~/stores/notices"

export function DraftBar() {
  const { drafts, currentId, select, create, rename, duplicate, remove, importFrom } = useDrafts()
  const draft = current({ drafts, currentId })
  const [naming, setNaming] = useState<string | null>(null)
  const picker = useRef<HTMLInputElement>(null)

  async function read(file: File | undefined) {
    if (!file) return
    try {
      const count = importFrom(await file.text())
      useNotices.getState().show({ tone: "info", title: `${count} ${count === 1 ? "draft" : "drafts"} read in` })
    } catch (error) {
      showError(error)
    }
  }

  function drop() {
    offerUndo(`“${draft.name}” is deleted`, remove(draft.id))
  }

  function download(which: typeof drafts, name: string) {
    save(new Blob([exported(which)], { type: "application/json" }), `${name}.json`)
  }

  return (
    <div className="flex items-center gap-2 border-b border-line px-3 py-2">
      {naming === null ? (
        <select
          aria-label="Draft"
          className="min-h-9 max-w-full min-w-0 truncate rounded-lg bg-transparent px-2 font-medium hover:bg-raised"
          value={draft.id}
          onChange={(event) => select(event.target.value)}
        >
          {drafts.map(({ id, name }) => (
            <option key={id} value={id}>
              {name}
            </option>
          ))}
        </select>
      ) : (
        <form
          className="min-w-0"
          onSubmit={(event) => {
            event.preventDefault()
            rename(draft.id, naming)
            setNaming(null)
          }}
        >
          <input
            aria-label="The draft's name"
            className="min-h-9 w-full rounded-lg border border-line-strong/60 bg-surface px-2"
            maxLength={80}
            // biome-ignore lint/a11y/noAutofocus: asked for a moment ago by a menu entry
            autoFocus
            value={naming}
            onFocus={(event) => event.target.select()}
            onChange={(event) => setNaming(event.target.value)}
            onBlur={() => {
              rename(draft.id, naming)
              setNaming(null)
            }}
            onKeyDown={(event) => {
              if (event.key !== "Escape") return
              event.stopPropagation()
              event.nativeEvent.preventDefault()
              setNaming(null)
            }}
          />
        </form>
      )}
      <p className="ml-auto hidden text-sm text-soft sm:block">Kept in this browser</p>
      <input
        ref={picker}
        type="file"
        accept=".json,application/json"
        className="hidden"
        aria-hidden="true"
        tabIndex={-1}
        data-testid="drafts-file"
        onChange={(event) => {
          void read(event.target.files?.[0])
          event.target.value = ""
        }}
      />
      <Menu>
        <MenuButton
          aria-label="Drafts"
          title="Drafts"
          className="inline-flex size-9 items-center justify-center rounded-lg hover:bg-raised max-sm:ml-auto"
        >
          <Icon name="more" />
        </MenuButton>
        <MenuItems
          anchor={{ to: "bottom end", gap: 4 }}
          className="z-50 w-60 rounded-xl border border-line bg-surface p-1 shadow-lg"
        >
          <Entry icon="plus" onClick={() => create()}>
            New draft
          </Entry>
          <Entry icon="edit" onClick={() => setNaming(draft.name)}>
            Rename
          </Entry>
          <Entry icon="copy" onClick={() => duplicate(draft.id)}>
            Duplicate
          </Entry>
          <Entry icon="trash" onClick={drop}>
            Delete
          </Entry>
          <Entry icon="download" onClick={() => download([draft], "draft")}>
            Export this draft
          </Entry>
          <Entry icon="download" onClick={() => download(drafts, "drafts")}>
            Export all drafts
          </Entry>
          <Entry icon="upload" onClick={() => picker.current?.click()}>
            Import drafts
          </Entry>
        </MenuItems>
      </Menu>
    </div>
  )
}

function Entry({ icon, onClick, children }: { icon: IconName; onClick: () => void; children: ReactNode }) {
  return (
    <MenuItem>
      <button
        type="button"
        className="flex w-full items-center gap-3 rounded-lg px-3 py-2 text-left data-focus:bg-accent-wash"
        onClick={onClick}
      >
        <Icon name={icon} className="text-soft" />
        {children}
      </button>
    </MenuItem>
  )
}
