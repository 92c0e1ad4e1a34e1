// What the fleet found in a voice's recordings, and what could be better.
import type { VoiceSample } from "~/api/types"
import { Icon } from "~/components/icons"

export function QualityHints({ samples }: { samples: readonly VoiceSample[] }) {
  return (
    <ul className="flex flex-col gap-2">
      {samples.map(({ sha256, filename, report }) => (
        <li key={sha256} className="rounded-xl bg-raised p-3 text-sm">
          <p className="font-medium break-all">{filename}</p>
          <p className="text-soft tabular-nums">
            {report.duration_s.toFixed(1)} s · {(report.sample_rate / 1000).toLocaleString()} kHz · loudness{" "}
            {report.loudness_lufs.toFixed(0)} LUFS · noise {report.noise_db.toFixed(0)} dB
          </p>
          {(report.notes ?? []).length === 0 ? (
            <p className="mt-1 flex items-center gap-1.5 text-good">
              <Icon name="check" /> Nothing speaks against it.
            </p>
          ) : (
            (report.notes ?? []).map((note) => (
              <p key={note} className="mt-1 flex items-start gap-1.5 text-warn">
                <Icon name="warning" className="mt-0.5 shrink-0" /> {note}
              </p>
            ))
          )}
        </li>
      ))}
    </ul>
  )
}
