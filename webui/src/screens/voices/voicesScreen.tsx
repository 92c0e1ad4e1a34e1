// Voices.
export default function VoicesScreen() {
  return <h1 className="text-2xl font-semibold">Voices</h1>
}
