// Emotions.
export default function EmotionsScreen() {
  return <h1 className="text-2xl font-semibold">Emotions</h1>
}
