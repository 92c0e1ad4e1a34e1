// How the page is built: one folder, dist/, that is served under /ui/; each text file has a gzipped twin beside it.
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import tailwindcss from "@tailwindcss/vite"
import react from "@vitejs/plugin-react"
import { defineConfig, type Plugin } from "vite"

const fleet = process.env.VITE_API_URL ?? "http://127.0.0.1:6095"
const routes = /^\/(v1|voices|emotions|synthesize|generate|outputs|encode|health|ready|stats|workers)(\/|\?|$)/

function gzipped(): Plugin {
  let folder = ""
  return {
    name: "gzipped",
    apply: "build",
    configResolved: (config) => {
      folder = join(config.root, config.build.outDir)
    },
    closeBundle: () => {
      for (const file of readdirSync(folder, { recursive: true, withFileTypes: true })) {
        if (!file.isFile() || !/\.(html|js|css|svg|json)$/.test(file.name)) continue
        const path = join(file.parentPath, file.name)
        writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9 }))
      }
    },
  }
}

export default defineConfig({
  base: "/ui/",
  plugins: [react(), tailwindcss(), gzipped()],
  resolve: { alias: { "~": new URL("./src", import.meta.url).pathname } },
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false }, reportCompressedSize: false },
  server: {
    port: Number(process.env.PORT ?? 5173),
    proxy: { [routes.source]: { target: fleet } },
  },
})
