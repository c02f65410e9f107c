import type { RolloutSchedule, RolloutTarget, RolloutView, SiteBudget } from "@fieldloop/protocol";
import type { ComponentChildren } from "preact";
import { Link } from "wouter-preact";
import { formatAbsolute, formatCount, formatDuration, formatPercent, plural } from "../lib/format.js";
import { versionPath } from "../lib/url.js";
import { Hash, Time } from "../ui/atoms.js";
import { Facts, Panel } from "../ui/layout.js";

/** What was asked for, in words and units. */
export function Settings({ rollout }: { rollout: RolloutView }) {
  return (
    <Panel title="Settings">
      <Facts
        rows={[
          ...subjectRows(rollout),
          ...orderRows(rollout),
          ...gateRows(rollout),
          ...deviceRows(rollout),
          ...personRows(rollout),
        ]}
      />
    </Panel>
  );
}

type Rows = (readonly [string, ComponentChildren])[];

function subjectRows({ subject, request }: RolloutView): Rows {
  const what: Rows =
    subject.kind === "package"
      ? [
          [
            "Version",
            <span key="version">
              <Link href={versionPath(subject.model, subject.version)}>
                {subject.model}@{subject.version}
              </Link>{" "}
              <Hash value={subject.packageSha256} copy />
            </span>,
          ],
        ]
      : [
          ["Configuration", <code key="config">{subject.configId}</code>],
          ["Says", <code key="policy">{JSON.stringify(subject.policy)}</code>],
        ];
  return [...what, ["Target", targetText(request.target)]];
}

function targetText(target: RolloutTarget): string {
  if ("devices" in target) return plural(target.devices.length, "chosen device");
  const who =
    "group" in target
      ? `group ${target.group}`
      : Object.entries(target.selector.tags)
          .map(([key, value]) => `${key}=${value}`)
          .join(", ") || "all devices";
  return target.membership === "dynamic"
    ? `${who}, and who joins it later`
    : `${who}, as it was at the start`;
}

function orderRows({ request }: RolloutView): Rows {
  const { schedule, budgets, offersPerMinute, priority, control } = request;
  const held =
    control && ("share" in control ? formatPercent(control.share, 0) : plural(control.count, "device"));
  return [
    ["Priority", `${priority} of 1000`],
    ["Offers", `at most ${formatCount(offersPerMinute)} a minute`],
    ...(held ? [["Held back for comparison", held] as const] : []),
    ...(schedule.startAt === null ? [] : [["Not before", formatAbsolute(schedule.startAt)] as const]),
    ...(schedule.windows.length > 0
      ? [["Maintenance windows", schedule.windows.map(windowText).join("; ")] as const]
      : []),
    ...(budgets.length > 0
      ? [["Unavailable at once, at most", budgets.map(budgetText).join("; ")] as const]
      : []),
  ];
}

const DAYS = ["Su", "Mo", "Tu", "We", "Th", "Fr", "Sa"];

function windowText({ days, start, minutes }: RolloutSchedule["windows"][number]): string {
  const when = days.length === 7 ? "daily" : days.map((day) => DAYS[day]).join(" ");
  return `${when} from ${start} for ${formatDuration(minutes * 60_000)}, the device’s time`;
}

function budgetText({ tag, maxUnavailable }: SiteBudget): string {
  const most =
    "count" in maxUnavailable ? plural(maxUnavailable.count, "device") : `${maxUnavailable.percent} %`;
  return `${most} of each ${tag}`;
}

function gateRows({ request }: RolloutView): Rows {
  const { gate, onFailure } = request;
  return [
    [
      "Where a gate fails",
      { pause: "pause", abort: "abort and keep", roll_back: "roll every device back" }[onFailure],
    ],
    [
      "Failed share",
      `at most ${formatPercent(gate.failedShareMax, 0)} of a wave; silence for ${formatDuration(gate.silenceSeconds * 1000)} counts`,
    ],
    [
      "Soak",
      `${formatDuration(gate.soakSeconds * 1000)} after the last device, at least ${plural(gate.predictionsMin, "prediction")} each`,
    ],
    [
      "Accuracy",
      gate.accuracyDropMax === null
        ? "not looked at"
        : `may drop by ${(gate.accuracyDropMax * 100).toFixed(1)} points`,
    ],
    ["Latency", gate.latencyRatioMax === null ? "not looked at" : `at most × ${gate.latencyRatioMax}`],
    ["Crashes", gate.crashRatioMax === null ? "not looked at" : `at most × ${gate.crashRatioMax} of control`],
    ["Stopped by chance", `at most ${formatPercent(gate.falseStopMax, 1)} of good rollouts, over all looks`],
    ["Wave timeout", formatDuration(gate.waveTimeoutSeconds * 1000)],
  ];
}

function deviceRows({ request }: RolloutView): Rows {
  const { probation, shadow, retries } = request;
  return [
    [
      "Shadow first",
      shadow === null
        ? "no"
        : `${formatDuration(shadow.seconds * 1000)} and ${plural(shadow.predictions, "frame")}, at most ${formatPercent(shadow.cpuShareMax, 0)} of the processors`,
    ],
    [
      "Probation on the device",
      `${formatDuration(probation.seconds * 1000)} and ${plural(probation.predictions, "prediction")}`,
    ],
    ["Asked again", retries.max === 0 ? "no" : `${retries.max} times, ${retries.delaySeconds} s apart`],
  ];
}

function personRows({ request, approval, createdBy, created, finished }: RolloutView): Rows {
  const given = approval?.given;
  return [
    ...(request.forceReason ? [["Forced without evidence", request.forceReason] as const] : []),
    ...(approval ? [["Approval", given ? `by ${given.by}` : "wanted from a second person"] as const] : []),
    [
      "Created",
      <span key="created">
        <Time at={created} /> by {createdBy}
      </span>,
    ],
    ["Finished", <Time at={finished} none="not yet" key="finished" />],
  ];
}
