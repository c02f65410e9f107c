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
  const named = frequentClasses([...arms.canary, ...arms.control]);
  const sides = 2 * named.length;
  const alpha = alphaOf("class_mix", settings, evidence.wave);
  const moves = named.map((name) => {
    const contrast = contrastOf(
      shareOfDevices(arms.canary.map((pair) => totalsOf(pair, name, named))),
      shareOfDevices(arms.control.map((pair) => totalsOf(pair, name, named))),
    );
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

/** By their counts in both arms and before, so that the choice does not favour what moved. */
function frequentClasses(pairs: readonly Pair<Classes>[]): string[] {
  const counts = new Map<string, number>();
  for (const { during, before } of pairs) {
    for (const classes of [during, before ?? {}]) {
      for (const [name, count] of Object.entries(classes)) counts.set(name, (counts.get(name) ?? 0) + count);
    }
  }
  const sorted = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
  return sorted.length <= CLASSES_MAX ? sorted : [...sorted.slice(0, CLASSES_MAX - 1), OTHERS];
}

function totalsOf(
  { during, before }: Pair<Classes>,
  name: string,
  named: readonly string[],
): { during: Total; before: Total | null } {
  return { during: totalOf(during, name, named), before: before && totalOf(before, name, named) };
}

function totalOf(classes: Classes, name: string, named: readonly string[]): Total {
  let weight = 0;
  for (const count of Object.values(classes)) weight += count;
  if (name !== OTHERS) return { sum: classes[name] ?? 0, weight };
  const told = named.reduce((sum, one) => sum + (classes[one] ?? 0), 0);
  return { sum: weight - told, weight };
}

function mirror(contrast: Contrast): Contrast {
  return { ...contrast, value: -contrast.value };
}
