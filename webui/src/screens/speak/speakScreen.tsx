// Speak.
export function SpeakScreen() {
  return <h1 className="text-2xl font-semibold">Speak</h1>
}
