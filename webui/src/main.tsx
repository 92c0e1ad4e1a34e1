import { StrictMode } from "react"
import { createRoot } from "react-dom/client"
import { App } from "./app"
import "./index.css"
import { watchHealth } from "./stores/health"
import { watchLibrary } from "./stores/library"
import { followTheme } from "./stores/preferences"

followTheme()
watchHealth()
watchLibrary()

createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <App />
  </StrictMode>,
)
