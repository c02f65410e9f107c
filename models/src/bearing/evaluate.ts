import type { Backend } from "@fieldloop/runtime";
import { type BearingFault, bearingSampling } from "@fieldloop/runtime/simulate";
import { areaUnderRoc, round } from "../recipe.js";
import { bearingSeeds, drawWindows, realFaults, sound, toBearingRows } from "./data.js";

const batch = 50;

/** Mean squared reconstruction error of each window (in g), on normalized values, as the device computes it. */
export async function errorsOf(
  model: Uint8Array,
  backend: Backend,
  windows: Float32Array,
): Promise<number[]> {
  const session = await backend.openSession(model, { threadCount: 1, executionProvider: "cpu" });
  const rows = toBearingRows(windows);
  const { windowLength } = bearingSampling;
  const errors: number[] = [];
  try {
    for (let at = 0; at < rows.length; at += batch * windowLength) {
      const data = rows.slice(at, at + batch * windowLength);
      const count = data.length / windowLength;
      const outputs = await session.run({ window: { type: "float32", dims: [count, windowLength], data } });
      const restored = outputs["reconstruction"].data as Float32Array;
      for (let row = 0; row < count; row++) {
        let sum = 0;
        for (let k = row * windowLength; k < (row + 1) * windowLength; k++)
          sum += (data[k] - restored[k]) ** 2;
        errors.push(sum / windowLength);
      }
    }
  } finally {
    await session.release();
  }
  return errors;
}

export interface BearingFigures {
  /** Faults of severity 0.5 to 1 against sound windows of other machines. */
  readonly auroc: number;
  readonly falseAlarms: number;
  /** Share of windows above the threshold, by fault and severity. */
  readonly detected: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly aurocByFault: Readonly<Record<string, number>>;
}

const severities = [0.3, 0.5, 0.75, 1] as const;
const aurocSeverityMin = 0.5;

/** Both variants on machines that neither training nor threshold has seen. */
export async function measureBearing(options: {
  readonly backend: Backend;
  readonly fp32: Uint8Array;
  readonly int8: Uint8Array;
  readonly threshold: number;
}): Promise<{ readonly fp32: BearingFigures; readonly int8: BearingFigures }> {
  const of = (model: Uint8Array) => figuresOf(model, options.backend, options.threshold);
  return { fp32: await of(options.fp32), int8: await of(options.int8) };
}

async function figuresOf(model: Uint8Array, backend: Backend, threshold: number): Promise<BearingFigures> {
  const draw = { seed: bearingSeeds.test, machines: 15, perMachine: 40 };
  const normal = await errorsOf(model, backend, drawWindows({ ...draw, condition: sound }));
  const above = (errors: readonly number[]): number =>
    round(errors.filter((error) => error > threshold).length / errors.length);
  const detected: Record<string, Record<string, number>> = {};
  const byFault: Partial<Record<BearingFault, number[]>> = {};
  for (const fault of realFaults) {
    detected[fault] = {};
    for (const severity of severities) {
      const errors = await errorsOf(model, backend, drawWindows({ ...draw, condition: { fault, severity } }));
      detected[fault][String(severity)] = above(errors);
      if (severity >= aurocSeverityMin) byFault[fault] = [...(byFault[fault] ?? []), ...errors];
    }
  }
  return {
    auroc: round(areaUnderRoc(Object.values(byFault).flat(), normal)),
    falseAlarms: above(normal),
    detected,
    aurocByFault: Object.fromEntries(
      Object.entries(byFault).map(([fault, errors]) => [fault, round(areaUnderRoc(errors, normal))]),
    ),
  };
}
