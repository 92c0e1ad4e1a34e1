// Fleet.
export default function FleetScreen() {
  return <h1 className="text-2xl font-semibold">Fleet</h1>
}
