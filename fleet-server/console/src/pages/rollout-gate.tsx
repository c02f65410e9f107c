import type { ArmCounts, GateTest, GateVerdict } from "@fieldloop/protocol";
import { formatNumber, plural } from "../lib/format.js";
import { VERDICT_KIND } from "../lib/kinds.js";
import { describeTest, placeTest, worstFirst } from "../lib/rollouts.js";
import { State, Time } from "../ui/atoms.js";

/** A gate's verdict: each test with its value, its interval beside the limit, and what was counted. */
export function Gate({ gate, looks }: { gate: GateVerdict; looks: number }) {
  return (
    <div class="table-scroll gate">
      <table class="compact">
        <caption class="muted">
          Gate, {plural(looks, "look")}, the latest <Time at={gate.time} />
        </caption>
        <thead>
          <tr>
            <th>Test</th>
            <th>Verdict</th>
            <th class="number">Value</th>
            <th class="gate-axis-head">
              <span aria-hidden="true">Interval and limit</span>
            </th>
            <th class="number">Limit</th>
            <th>Counted from</th>
          </tr>
        </thead>
        <tbody>
          {worstFirst(gate.tests).map((test) => (
            <TestRow key={test.test} test={test} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function TestRow({ test }: { test: GateTest }) {
  const text = describeTest(test);
  return (
    <tr>
      <td class="strong nowrap">{text.title}</td>
      <td>
        <State kind={VERDICT_KIND[test.verdict]}>{test.verdict}</State>
      </td>
      <td class="number nowrap">{text.value}</td>
      <td>
        <Axis test={test} interval={text.interval} />
      </td>
      <td class="number nowrap muted">{text.limit}</td>
      <td class="muted detail" title={armsText(test)}>
        {test.detail}
      </td>
    </tr>
  );
}

/** The interval that holds the truth at every look, with the value in it and a mark at the limit. */
function Axis({ test, interval }: { test: GateTest; interval: string }) {
  const place = placeTest(test);
  if (!place) return null;
  const percent = (share: number) => `${(share * 100).toFixed(1)}%`;
  const confidence = test.confidence === null ? "" : ` at ${formatNumber(100 * test.confidence, 4)} %`;
  const says = interval === "" ? "a plain rule" : `interval ${interval}${confidence}`;
  return (
    <span class={`gate-axis gate-axis-${test.verdict}`} role="img" aria-label={says} title={says}>
      <span class="gate-range" style={{ left: percent(place.low), right: percent(1 - place.high) }} />
      <span class="gate-limit" style={{ left: percent(place.limit) }} />
      <span class="gate-dot" style={{ left: percent(place.value) }} />
    </span>
  );
}

function armsText({ canary, control, eValue }: GateTest): string {
  const arm = (name: string, counts: ArmCounts | null) =>
    counts
      ? [
          `${name}: ${formatNumber(counts.count)} of ${formatNumber(counts.of)} on ${plural(counts.devices, "device")}`,
        ]
      : [];
  const evidence = eValue === null ? [] : [`e-value ${formatNumber(eValue)}`];
  return [...arm("canary", canary), ...arm("control", control), ...evidence].join("; ");
}
