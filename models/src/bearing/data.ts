import type { DataItem } from "@fieldloop/protocol";
import {
  type BearingCondition,
  type BearingFault,
  bearingFaults,
  bearingSampling,
  createBearingSignal,
} from "@fieldloop/runtime/simulate";

const { windowLength } = bearingSampling;

/** Seeds of the drawn machines: no two of these sets share a machine. */
export const bearingSeeds = { train: 1000, validation: 5000, holdout: 6000, test: 8000 } as const;

export const sound: BearingCondition = { fault: "none", severity: 0 };

/** What windows are divided by, in g: about the deviation of a sound machine. Absolute, so that a louder machine is seen. */
export const bearingScale = 0.27;

/** The faults without "none". */
export const realFaults = bearingFaults.filter(
  (fault): fault is Exclude<BearingFault, "none"> => fault !== "none",
);

/** Which windows to make: `machines` signals from `seed` on, `perMachine` windows of each, `stride` windows apart. */
export interface BearingDraw {
  readonly seed: number;
  readonly machines: number;
  readonly perMachine: number;
  readonly firstIndex?: number;
  readonly stride?: number;
  readonly condition: BearingCondition;
}

/** Windows in g, [count, 256], machine after machine. The same draw gives the same numbers. */
export function drawWindows(draw: BearingDraw): Float32Array {
  const stride = draw.stride ?? 7;
  const windows = new Float32Array(draw.machines * draw.perMachine * windowLength);
  for (let machine = 0; machine < draw.machines; machine++) {
    const signal = createBearingSignal({ seed: draw.seed + machine, condition: draw.condition });
    for (let index = 0; index < draw.perMachine; index++) {
      const { samples } = signal.at((draw.firstIndex ?? 0) + index * stride);
      windows.set(samples, (machine * draw.perMachine + index) * windowLength);
    }
  }
  return windows;
}

/** Windows as the network's rows: divided by {@link bearingScale}, as the manifest declares. */
export function toBearingRows(windows: Float32Array): Float32Array {
  return windows.map((value) => value / bearingScale);
}

/** Windows as items of a package's data file. */
export function toWindowItems(windows: Float32Array, label: string): DataItem[] {
  return Array.from({ length: windows.length / windowLength }, (_, index) => {
    const samples = windows.slice(index * windowLength, (index + 1) * windowLength);
    return { media: "application/x-fieldloop-window", label, payload: new Uint8Array(samples.buffer) };
  });
}
