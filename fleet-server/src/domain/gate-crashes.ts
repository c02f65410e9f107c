import type { GateTest } from "@fieldloop/protocol";
import type { DeviceEvidence, DeviceStats } from "./gate-evidence.js";
import { alphaOf } from "./gate-budget.js";
import { GATE_MINIMA, type GateContext } from "./gate-arms.js";
import { confidence, count, devices, digits, line, proves } from "./gate-lines.js";
import { markedEvidence } from "./statistics/random-labels.js";
import { overdispersion, rateEvidence, rateRatioBounds, type Rate } from "./statistics/rates.js";
import { logAdd, logIncompleteBeta } from "./statistics/special.js";

const SECONDS_PER_HOUR = 3600;
/** One look's probability below which a gate waits rather than passes: looks worse, is not proven. */
const SUSPICION = 0.05;
/**
 * A device is marked from so many crashes on, times one more than it had before the wave. Which of them tells most depends on the
 * defect (once on many devices, in a loop on few), so the bet is spread over them.
 */
const LEVELS = [
  { crashes: 1, weight: 0.25 },
  { crashes: 3, weight: 0.5 },
  { crashes: 10, weight: 0.25 },
] as const;

/**
 * Crashes per device-hour over the control group's. Counts are divided by how much devices differ in them (`overdispersion`), so
 * that one device in a crash loop stays one; in a wave of too few devices to see that, crashes count as independent. Without a
 * control group of some size the wave is also held against its own past.
 */
export function crashRate({ settings, evidence, canary, control }: GateContext): GateTest {
  const limit = settings.crashRatioMax!;
  const alpha = alphaOf("crash_rate", settings, evidence.wave);
  const alone = control.length < GATE_MINIMA.devices;
  const during = canary.map((device) => rateOf(device.during));
  const reference = control.map((device) => rateOf(device.during));
  if (alone) {
    for (const { before } of [...canary, ...control]) if (before) reference.push(rateOf(before));
  }
  const first = addRates(during);
  const second = addRates(reference);
  if (first.exposure <= 0 || second.exposure <= 0) {
    return line("crash_rate", "pass", "not compared: no time in which both versions ran", { limit });
  }
  const spread = canary.length < GATE_MINIMA.devices ? 1 : overdispersion([...during, ...reference]);
  const thin = ({ count, exposure }: Rate): Rate => ({ count: count / spread, exposure });
  const [a, b] = [thin(first), thin(second)];
  const logE = rateEvidence(a, b, limit);
  const { low, high } = rateRatioBounds(a, b, alpha);
  const verdict = proves(logE, alpha) ? "fail" : isSuspicious(a, b, limit) ? "inconclusive" : "pass";
  const against = alone ? "on control and before" : "on control";
  const bounds = `ratio ${low > 0 ? `at least ${digits(low)}` : "unbounded below"}, ${Number.isFinite(high) ? `at most ${digits(high)}` : "unbounded above"}`;
  return line(
    "crash_rate",
    verdict,
    `crashes: ${told(first)} on canary, ${told(second)} ${against}; ${bounds} with ${confidence(alpha)}; at most ${digits(limit)} allowed`,
    {
      value: second.count > 0 ? first.count / first.exposure / (second.count / second.exposure) : null,
      limit,
      low,
      high,
      alpha,
      logE,
      canary: { devices: canary.length, count: first.count, of: first.exposure },
      control: { devices: control.length, count: second.count, of: second.exposure },
    },
  );
}

/**
 * Devices that crash more than they did, in the wave against the control group. Rests on nothing but that the wave was drawn at
 * random: devices may differ in any way, and a crash may cause the next. Beyond `crashRatioMax` times the control group's share.
 */
export function crashedDevices({ settings, evidence, canary, control }: GateContext): GateTest {
  const limit = settings.crashRatioMax!;
  if (canary.length === 0 || control.length === 0) {
    return line("crashed_devices", "pass", "not compared: there is no control group", { limit });
  }
  const alpha = alphaOf("crashed_devices", settings, evidence.wave);
  const levels = LEVELS.map(({ crashes, weight }) => {
    const marked = {
      canary: { marked: countMarked(canary, crashes), devices: canary.length },
      control: { marked: countMarked(control, crashes), devices: control.length },
    };
    return { crashes, marked, logE: Math.log(weight) + markedEvidence(marked) };
  });
  const logE = levels.reduce((sum, level) => logAdd(sum, level.logE), Number.NEGATIVE_INFINITY);
  const telling = levels.reduce((best, level) => (level.logE > best.logE ? level : best));
  const first = { count: telling.marked.canary.marked, exposure: canary.length };
  const second = { count: telling.marked.control.marked, exposure: control.length };
  const { low, high } = rateRatioBounds(first, second, alpha);
  const beyond = first.count / first.exposure > (limit * second.count) / second.exposure;
  const more = telling.crashes === 1 ? "crashed" : `crashed ${telling.crashes} times or more`;
  return line(
    "crashed_devices",
    beyond && proves(logE, alpha) ? "fail" : isSuspicious(first, second, limit) ? "inconclusive" : "pass",
    `${first.count} of ${devices(canary.length)} ${more} and more than before, ${second.count} of ${devices(control.length)} in the control group; at most ${digits(limit)} times its share allowed`,
    {
      value: second.count > 0 ? first.count / first.exposure / (second.count / second.exposure) : null,
      limit,
      low,
      high,
      alpha,
      logE,
      canary: { devices: canary.length, count: first.count, of: canary.length },
      control: { devices: control.length, count: second.count, of: control.length },
    },
  );
}

/** The threshold of a device rests on its past alone, so marks are never taken back. */
function countMarked(arm: readonly DeviceEvidence[], crashes: number): number {
  return arm.filter(({ during, before }) => during.crashes >= crashes * (1 + (before?.crashes ?? 0))).length;
}

function rateOf({ crashes, seconds }: DeviceStats): Rate {
  return { count: crashes, exposure: seconds / SECONDS_PER_HOUR };
}

function addRates(rates: readonly Rate[]): Rate {
  return {
    count: rates.reduce((sum, rate) => sum + rate.count, 0),
    exposure: rates.reduce((sum, rate) => sum + rate.exposure, 0),
  };
}

/** An ordinary test of this look alone, that the ratio is beyond the limit (binomial tail, also between whole counts). */
function isSuspicious(first: Rate, second: Rate, limit: number): boolean {
  if (first.count <= 0) return false;
  const share = (limit * first.exposure) / (limit * first.exposure + second.exposure);
  return logIncompleteBeta(share, first.count, second.count + 1).below < Math.log(SUSPICION);
}

function told({ count: crashes, exposure }: Rate): string {
  return `${count(crashes)} in ${digits(exposure)} device-hours`;
}
