import type { GateTest } from "@fieldloop/protocol";
import { alphaOf } from "./gate-budget.js";
import { comparableDevices, GATE_MINIMA, tooFew, type GateContext, type Pair } from "./gate-arms.js";
import { levelVerdict } from "./gate-levels.js";
import { confidence, devices, line, percent, points, proves } from "./gate-lines.js";
import {
  contrastBounds,
  contrastEvidence,
  contrastOf,
  shareOfDevices,
  type Contrast,
  type Total,
} from "./statistics/device-contrast.js";

/** Shift of a class's share that matters. */
const SCALE = 0.05;
/** The most frequent classes are compared by name, the rest together: each costs its part of the error. */
const CLASSES_MAX = 16;

type Classes = Readonly<Record<string, number>>;

/**
 * What the versions see: the share of each class, each device beside its own past, the wave against the control group, devices as
 * the unit. The class whose share moved most surely decides; the error is split over classes and both directions.
 */
export function classMix(context: GateContext): GateTest {
  const { settings, evidence } = context;
  const limit = settings.classShiftMax!;
  const arms = comparableDevices<Classes>(context, ({ classes, predictions }) =>
    predictions >= GATE_MINIMA.predictions ? classes : null,
  );
  if (!arms) return line("class_mix", "pass", `not compared: ${tooFew(context)}`, { limit });
  const { names, canary, control } = tabulate(arms.canary, arms.control);
  const sides = 2 * names.length;
  const alpha = alphaOf("class_mix", settings, evidence.wave);
  const moves = names.map((name, at) => {
    const contrast = contrastOf(shareOfDevices(totalsAt(canary, at)), shareOfDevices(totalsAt(control, at)));
    const up = contrast.value >= 0 ? contrast : mirror(contrast);
    return { name, contrast, up, logE: contrastEvidence(up, limit, SCALE) - Math.log(sides) };
  });
  const first = moves.reduce((best, move) => (move.logE > best.logE ? move : best), moves[0]!);
  const bounds = contrastBounds(first.up, SCALE, alpha / sides);
  const direction = first.contrast.value >= 0 ? "up" : "down";
  return line(
    "class_mix",
    levelVerdict(settings, first.up.value, bounds, limit, proves(first.logE, alpha)),
    `share of ${first.name === OTHERS ? "other classes" : `"${first.name}"`} ${direction} by ${points(first.up.value)}, between ${points(bounds.low)} and ${points(bounds.high)} with ${confidence(alpha)} (${devices(arms.canary.length)} against ${arms.control.length}); a move of ${percent(limit)} allowed`,
    { value: first.up.value, limit, ...bounds, alpha, logE: first.logE },
  );
}

/** Stands for all classes that are not compared by name; no class is called so. */
const OTHERS = "";

/** Counts of the compared classes in one stretch of one device, and their sum. */
interface Row {
  readonly counts: Float64Array;
  readonly weight: number;
}

/** Counts by class number. Which classes have one follows from both arms and both times, so that the choice does not favour what moved. */
function tabulate(
  canary: readonly Pair<Classes>[],
  control: readonly Pair<Classes>[],
): { names: string[]; canary: Pair<Row>[]; control: Pair<Row>[] } {
  const sums = new Map<string, number>();
  for (const arm of [canary, control]) {
    for (const { during, before } of arm) {
      addClasses(sums, during);
      if (before) addClasses(sums, before);
    }
  }
  const sorted = [...sums].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
  const names = sorted.length <= CLASSES_MAX ? sorted : [...sorted.slice(0, CLASSES_MAX - 1), OTHERS];
  const numbers = new Map(sorted.map((name, at) => [name, Math.min(at, names.length - 1)]));
  const row = (classes: Classes): Row => {
    const counts = new Float64Array(names.length);
    let weight = 0;
    for (const name of Object.keys(classes)) {
      const count = classes[name]!;
      counts[numbers.get(name)!]! += count;
      weight += count;
    }
    return { counts, weight };
  };
  const rows = (arm: readonly Pair<Classes>[]): Pair<Row>[] =>
    arm.map(({ during, before }) => ({ during: row(during), before: before && row(before) }));
  return { names, canary: rows(canary), control: rows(control) };
}

function addClasses(sums: Map<string, number>, classes: Classes): void {
  for (const name of Object.keys(classes)) sums.set(name, (sums.get(name) ?? 0) + classes[name]!);
}

function totalsAt(rows: readonly Pair<Row>[], at: number): Pair<Total>[] {
  const total = ({ counts, weight }: Row): Total => ({ sum: counts[at]!, weight });
  return rows.map(({ during, before }) => ({ during: total(during), before: before && total(before) }));
}

function mirror(contrast: Contrast): Contrast {
  return { ...contrast, value: -contrast.value };
}
