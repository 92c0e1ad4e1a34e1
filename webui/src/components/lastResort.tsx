// What is shown where a fault of the page itself would leave nothing.
import { Component, type ReactNode } from "react"
import { Button } from "./buttons"

export class LastResort extends Component<{ children: ReactNode }, { fault: Error | null }> {
  override state = { fault: null as Error | null }

  static getDerivedStateFromError(fault: Error) {
    return { fault }
  }

  override render() {
    const { fault } = this.state
    if (!fault) return this.props.children
    return (
      <div role="alert" className="m-6 flex flex-col items-start gap-3 rounded-xl bg-bad-wash p-4">
        <p className="font-medium text-bad">The page has met a fault of its own</p>
        <p className="text-sm">
          Your drafts and takes are kept. {fault.name}: {fault.message}
        </p>
        <Button icon="reset" onClick={() => location.reload()}>
          Load the page again
        </Button>
      </div>
    )
  }
}
