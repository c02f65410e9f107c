import type { RolloutDeviceView, RolloutVerdict, RolloutView } from "@fieldloop/protocol";
import { proportionText, timeText } from "../commands/fleet-options.js";
import { countsText } from "./draw.js";

export function listRows(rollouts: readonly RolloutView[]): string[][] {
  return [
    ["ROLLOUT", "CHANGE", "STATE", "DEVICES", "WAVES", "CREATED", "REASON"],
    ...rollouts.map((one) => [
      one.rollout,
      one.name === "" ? one.title : `${one.title} “${one.name}”`,
      one.state,
      `${one.counts.active}/${one.counts.total}`,
      one.waves.map(({ state }) => state).join(" "),
      timeText(one.created),
      [supersededText(one), one.waitsFor ?? one.reason ?? ""].filter((text) => text !== "").join("; "),
    ]),
  ];
}

/** `superseded by parts@8 (rol_…) on 3 devices`; empty where no newer rollout took one. */
function supersededText({ superseders }: RolloutView): string {
  if (superseders.length === 0) return "";
  const each = superseders.map((one) => `${one.title} (${one.rollout}) on ${devicesText(one.devices)}`);
  return `superseded by ${each.join(", ")}`;
}

function devicesText(count: number): string {
  return count === 1 ? "1 device" : `${count} devices`;
}

export function showRows(rollout: RolloutView): string[][] {
  const { request, from, approval } = rollout;
  const given = approval?.given;
  const approvalText = given ? `${given.by}, ${timeText(given.time)}` : "wanted from a second person";
  return [
    ["ROLLOUT", rollout.rollout],
    ["change", rollout.title + (from?.version ? ` (from @${from.version})` : "")],
    ["state", rollout.reason === null ? rollout.state : `${rollout.state}: ${rollout.reason}`],
    ...(rollout.waitsFor === null ? [] : [["waits for", rollout.waitsFor]]),
    ["created", `${timeText(rollout.created)} by ${rollout.createdBy}, priority ${request.priority}`],
    ...(approval ? [["approval", approvalText]] : []),
    ["devices", countsText(rollout.counts)],
    ...rollout.superseders.map((one) => [
      "superseded by",
      `${one.title} (${one.rollout}) on ${devicesText(one.devices)}`,
    ]),
    ...(rollout.controlCount > 0 ? [["held back", `${rollout.controlCount} for comparison`]] : []),
    ["accuracy before", proportionText(rollout.accuracy.before)],
    ["accuracy after", proportionText(rollout.accuracy.after)],
    ...rollout.waves.flatMap((wave) => [
      [wave.name === "" ? `wave ${wave.wave}` : `wave ${wave.wave} ${wave.name}`, wave.state],
      ["  started", `${timeText(wave.started)}, ${countsText(wave.counts)}`],
      ...(wave.forced ? [["  by hand", `${wave.forced.by}: ${wave.forced.reason}`]] : []),
      ...(wave.gate?.tests ?? []).map((test) => [`  ${test.test}`, `${test.verdict}: ${test.detail}`]),
    ]),
  ];
}

export function deviceRows(devices: readonly RolloutDeviceView[]): string[][] {
  return [
    ["DEVICE", "WAVE", "STATE", "TRY", "UPDATED", "WHY"],
    ...devices.map((one) => [
      one.device,
      one.control ? `${one.wave} (control)` : `${one.wave}${one.joined ? " (joined)" : ""}`,
      one.state,
      String(one.attempt),
      timeText(one.updated),
      whyOf(one),
    ]),
  ];
}

/** What went wrong or holds it up, and how far its return is: `cancelled: the rollout was rolled back; restore done`. */
function whyOf({ hold, errorCode, errorMessage, restore, restoreDetail }: RolloutDeviceView): string {
  const why =
    errorCode === null
      ? hold && withDetail(hold.reason, hold.detail)
      : withDetail(errorCode, errorMessage ?? "");
  const back = restore === "none" ? null : withDetail(`restore ${restore}`, restoreDetail ?? "");
  return [why, back].filter((text) => text !== null).join("; ");
}

function withDetail(text: string, detail: string): string {
  return detail === "" ? text : `${text}: ${detail}`;
}

export function verdictRows(verdicts: readonly RolloutVerdict[]): string[][] {
  return [
    ["WAVE", "LOOK", "TIME", "TEST", "VERDICT", "VALUE", "INTERVAL", "LIMIT", "DETAIL"],
    ...verdicts.flatMap(({ wave, look, verdict }) =>
      verdict.tests.map((test) => [
        String(wave),
        String(look),
        timeText(verdict.time),
        test.test,
        test.verdict,
        numberText(test.value),
        test.low === null && test.high === null ? "" : `${numberText(test.low)} … ${numberText(test.high)}`,
        numberText(test.limit),
        test.detail,
      ]),
    ),
  ];
}

function numberText(value: number | null): string {
  return value === null ? "–" : String(Number(value.toPrecision(4)));
}
