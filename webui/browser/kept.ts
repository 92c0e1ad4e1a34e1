// The takes as this browser keeps them.
import type { Page } from "@playwright/test"

/** How many there are. */
export async function storedTakes(page: Page): Promise<number> {
  return await page.evaluate(async () => {
    const opening = indexedDB.open("chatterbox-fleet")
    const db = await new Promise<IDBDatabase>((resolve) => {
      opening.onsuccess = () => resolve(opening.result)
    })
    return await new Promise<number>((resolve) => {
      const asked = db.transaction("takes").objectStore("takes").count()
      asked.onsuccess = () => {
        db.close()
        resolve(asked.result)
      }
    })
  })
}

/** The newest take's samples, as this browser keeps them. */
export async function kept(page: Page): Promise<Int16Array> {
  const samples = await page.evaluate(async () => {
    const opening = indexedDB.open("chatterbox-fleet")
    const db = await new Promise<IDBDatabase>((resolve) => {
      opening.onsuccess = () => resolve(opening.result)
    })
    const all = <T>(store: string) =>
      new Promise<T[]>((resolve) => {
        const asked = db.transaction(store).objectStore(store).getAll()
        asked.onsuccess = () => resolve(asked.result as T[])
      })
    const keys = await new Promise<IDBValidKey[]>((resolve) => {
      const asked = db.transaction("sounds").objectStore("sounds").getAllKeys()
      asked.onsuccess = () => resolve(asked.result)
    })
    const newest = (await all<{ id: string; madeAt: number }>("takes")).sort((a, b) => b.madeAt - a.madeAt)[0]
    const sounds = await all<ArrayBuffer>("sounds")
    db.close()
    return Array.from(new Int16Array(sounds[keys.indexOf(newest?.id ?? "")] ?? new ArrayBuffer(0)))
  })
  return Int16Array.from(samples)
}
