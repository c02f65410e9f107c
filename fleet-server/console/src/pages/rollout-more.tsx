import { Field, NumberField } from "../ui/fields.js";
import { Panel } from "../ui/layout.js";

/** What most rollouts leave as it is. */
export interface More {
  readonly shadow: boolean;
  readonly shadowSeconds: number;
  readonly shadowFrames: number;
  readonly controlPercent: number;
  readonly budgetTag: string;
  readonly budgetCount: number;
  /** As a `datetime-local` field has it, in the browser's time; empty: at once. */
  readonly startAt: string;
  readonly windowStart: string;
  readonly windowMinutes: number;
  readonly priority: number;
  readonly retries: number;
  readonly approval: boolean;
}

export const NOTHING_MORE: More = {
  shadow: false,
  shadowSeconds: 60,
  shadowFrames: 500,
  controlPercent: 0,
  budgetTag: "",
  budgetCount: 1,
  startAt: "",
  windowStart: "",
  windowMinutes: 120,
  priority: 500,
  retries: 0,
  approval: false,
};

/** The parts of a request that were asked for; what was left as it is has the server's default. */
export function moreOf(more: More): Record<string, unknown> {
  const startAt = more.startAt === "" ? null : new Date(more.startAt).getTime();
  const windows = more.windowStart === "" ? [] : [{ start: more.windowStart, minutes: more.windowMinutes }];
  return {
    ...(more.shadow ? { shadow: { seconds: more.shadowSeconds, predictions: more.shadowFrames } } : {}),
    ...(more.controlPercent > 0 ? { control: { share: more.controlPercent / 100 } } : {}),
    ...(more.budgetTag.trim() === ""
      ? {}
      : { budgets: [{ tag: more.budgetTag.trim(), maxUnavailable: { count: more.budgetCount } }] }),
    ...(startAt !== null || windows.length > 0 ? { schedule: { startAt, windows } } : {}),
    ...(more.approval ? { approval: { required: true } } : {}),
    ...(more.retries > 0 ? { retries: { max: more.retries } } : {}),
    priority: more.priority,
  };
}

/** Shadow, control, budgets, times and approval: folded away until somebody wants them. */
export function MoreFields({ more, change }: { more: More; change: (more: More) => void }) {
  const set = (part: Partial<More>) => change({ ...more, ...part });
  const number = (name: NumberName) => ({
    value: more[name],
    change: (value: number) => set({ [name]: value }),
  });
  return (
    <Panel title="Shadow, control, times and approval" note="optional">
      <label class="check">
        <input
          type="checkbox"
          checked={more.shadow}
          onChange={(event) => set({ shadow: event.currentTarget.checked })}
        />
        Run it in shadow first: it sees the same inputs, and nothing it says is served
      </label>
      {more.shadow && (
        <div class="field-row">
          <NumberField label="Shadow for" unit="s" min={0} {...number("shadowSeconds")} />
          <NumberField label="and frames compared" unit="" min={0} {...number("shadowFrames")} />
        </div>
      )}
      <div class="field-row">
        <NumberField
          label="Held back for comparison"
          unit="%"
          min={0}
          max={50}
          {...number("controlPercent")}
        />
        <Field label="Budget: tag of a site" note="never more unavailable at once for one value">
          <input
            value={more.budgetTag}
            placeholder="for example site"
            maxLength={63}
            onInput={(event) => set({ budgetTag: event.currentTarget.value })}
          />
        </Field>
        <NumberField label="Unavailable of one site" unit="devices" min={1} {...number("budgetCount")} />
      </div>
      <div class="field-row">
        <Field label="Not before" note="your time; empty: at once">
          <input
            type="datetime-local"
            value={more.startAt}
            onInput={(event) => set({ startAt: event.currentTarget.value })}
          />
        </Field>
        <Field label="Maintenance window from" note="each device’s own time; empty: any time">
          <input
            type="time"
            value={more.windowStart}
            onInput={(event) => set({ windowStart: event.currentTarget.value })}
          />
        </Field>
        <NumberField label="for" unit="min" min={1} max={1440} {...number("windowMinutes")} />
      </div>
      <div class="field-row">
        <NumberField label="Priority" unit="of 1000" min={0} max={1000} {...number("priority")} />
        <NumberField
          label="Ask again after passing failures"
          unit="times"
          min={0}
          max={10}
          {...number("retries")}
        />
        <label class="check">
          <input
            type="checkbox"
            checked={more.approval}
            onChange={(event) => set({ approval: event.currentTarget.checked })}
          />
          Another person must approve it
        </label>
      </div>
    </Panel>
  );
}

type NumberName = {
  [Name in keyof More]: More[Name] extends number ? Name : never;
}[keyof More];
