import type { GateSettings } from "@fieldloop/protocol";
import type { DeviceEvidence, DeviceStats, GateEvidence } from "./gate-evidence.js";

/** Sample sizes below which a comparison is not made, or is made otherwise. */
export const GATE_MINIMA = {
  /** Devices of each arm from which the spread between devices can be told; below it plain limits judge (docs/gates.md). */
  devices: 8,
  /** A wave of fewer devices is held to `failedShareMax` itself, not to what its failures prove. */
  failedShareDevices: 20,
  /** Predictions of a device below which its mean says nothing: the first runs after a load are slow. */
  predictions: 20,
  /** Judged predictions of each version below which accuracy is not compared. */
  feedback: 30,
  /** Judged predictions of the new version from which an observed drop within the limit passes unproven. */
  feedbackEnough: 100,
  /** Active devices that must have `predictionsMin` predictions. */
  predictionsShare: 0.9,
} as const;

/** What every test gets: settings, evidence, and its two arms. */
export interface GateContext {
  readonly settings: GateSettings;
  readonly evidence: GateEvidence;
  readonly canary: readonly DeviceEvidence[];
  readonly control: readonly DeviceEvidence[];
}

export function makeContext(settings: GateSettings, evidence: GateEvidence): GateContext {
  return {
    settings,
    evidence,
    canary: evidence.devices.filter(({ arm }) => arm === "canary"),
    control: evidence.devices.filter(({ arm }) => arm === "control"),
  };
}

/** Per device what `read` makes of its statistics; devices of which it makes nothing (null) are left out. */
export interface Pair<Value> {
  readonly during: Value;
  readonly before: Value | null;
}

/**
 * The devices of both arms that have data, each beside its own `before` where at least `GATE_MINIMA.devices` of each arm have one (a
 * device's own past takes most of what differs between devices out of the comparison), else during alone. Which of the two is
 * fixed when the wave begins: changing it with the numbers would be a second test. Undefined where too few have data.
 */
export function comparableDevices<Value>(
  { canary, control }: GateContext,
  read: (stats: DeviceStats) => Value | null,
): { canary: Pair<Value>[]; control: Pair<Value>[]; ownPast: boolean } | undefined {
  const past = [canary, control].map((arm) => arm.filter(({ before }) => before && read(before) !== null));
  const ownPast = past.every(({ length }) => length >= GATE_MINIMA.devices);
  const pairs = (arm: readonly DeviceEvidence[]): Pair<Value>[] =>
    arm.flatMap(({ during, before }) => {
      const value = read(during);
      return value === null ? [] : [{ during: value, before: ownPast && before ? read(before) : null }];
    });
  const arms = (ownPast ? past : [canary, control]).map(pairs);
  if (arms.some(({ length }) => length < GATE_MINIMA.devices)) return undefined;
  return { canary: arms[0]!, control: arms[1]!, ownPast };
}

/** Why two arms were not compared device by device. */
export function tooFew({ canary, control }: GateContext): string {
  return `${canary.length} in the wave and ${control.length} in the control group, ${GATE_MINIMA.devices} with data are needed of each`;
}
