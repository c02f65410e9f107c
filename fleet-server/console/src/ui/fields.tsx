import type { ComponentChildren } from "preact";

export function Field({
  label,
  note,
  wide,
  children,
}: {
  label: string;
  note?: string;
  wide?: boolean;
  children: ComponentChildren;
}) {
  return (
    <label class={wide ? "field field-wide" : "field"}>
      <span>{label}</span>
      {children}
      {note && <small class="muted">{note}</small>}
    </label>
  );
}

interface NumberFieldProps {
  label: string;
  unit: string;
  value: number;
  change: (value: number) => void;
  min?: number;
  max?: number;
  step?: number;
}

/** A number with its unit; what is no number is not told. */
export function NumberField({ label, unit, value, change, min, max, step = 1 }: NumberFieldProps) {
  return (
    <label class="field field-number">
      <span>{label}</span>
      <span class="with-unit">
        <input
          type="number"
          value={value}
          min={min}
          max={max}
          step={step}
          required
          onInput={(event) => {
            const typed = event.currentTarget.valueAsNumber;
            if (Number.isFinite(typed)) change(typed);
          }}
        />
        {unit && <span class="unit">{unit}</span>}
      </span>
    </label>
  );
}
