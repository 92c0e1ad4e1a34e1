// The speaking parameters as sliders; what the engine that runs does not use is shown as such.
import { type Inherited, PARAMETERS, type Parameter, type ParameterName, whyIgnored } from "~/stores/parameters"
import { Slider } from "./slider"

interface ParameterSlidersProps {
  values: Partial<Record<ParameterName, number | null>>
  /** What holds where nothing is set. */
  inherited: Record<ParameterName, Inherited>
  /** Names of those that the engine uses; null where that is not known. */
  honoured: readonly string[] | null | undefined
  /** What is set outlives the engine that runs: what it does not use can be set all the same. */
  lasting?: boolean
  /** Null gives the value back to where it is inherited from. */
  onChange: (name: ParameterName, value: number | null) => void
}

export function ParameterSliders(props: ParameterSlidersProps) {
  const fine = PARAMETERS.filter((parameter) => parameter.fine)
  const set = fine.filter(({ name }) => props.values[name] != null).length
  return (
    <>
      {PARAMETERS.filter((parameter) => !parameter.fine).map((parameter) => (
        <ParameterSlider key={parameter.name} parameter={parameter} {...props} />
      ))}
      <details>
        <summary className="rounded-lg py-1 text-sm font-medium">
          Fine tuning{set > 0 && <span className="text-accent"> · {set} set</span>}
        </summary>
        <div className="mt-3 flex flex-col gap-5">
          {fine.map((parameter) => (
            <ParameterSlider key={parameter.name} parameter={parameter} {...props} />
          ))}
        </div>
      </details>
    </>
  )
}

function ParameterSlider({
  parameter,
  values,
  inherited,
  honoured,
  lasting = false,
  onChange,
}: ParameterSlidersProps & { parameter: Parameter }) {
  const { name, label, meaning, ends, from, to, step, least, most, whole = false } = parameter
  const given = values[name] ?? null
  const holds = inherited[name]
  const ignored = whyIgnored(name, honoured)
  const source = given === null ? (holds.from === "default" ? "The default." : `${holds.value} ${holds.from}.`) : ""
  return (
    <Slider
      label={label}
      value={given ?? holds.value}
      from={from}
      to={to}
      step={step}
      least={least}
      most={most}
      whole={whole}
      ends={ends}
      isSet={given !== null}
      said={ignored && !lasting ? ignored : [meaning, source, ignored].filter(Boolean).join(" ")}
      disabled={ignored !== null && !lasting}
      onChange={(value) => onChange(name, value)}
    />
  )
}
