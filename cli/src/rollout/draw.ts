import type {
  GateTest,
  RolloutDeviceCounts,
  RolloutProgress,
  RolloutView,
  WaveView,
} from "@fieldloop/protocol";
import pc from "picocolors";

/** Picture of a rollout for a terminal. Pure: the same view, width and time give the same lines. */
export interface DrawOptions {
  /** Columns that a line may take. */
  readonly width: number;
  readonly now: number;
  readonly colour: boolean;
}

type Paint = ReturnType<typeof pc.createColors>;

const BAR_MAX = 40;
const AXIS_MAX = 32;

/** The whole rollout: a heading, each wave with its bar, and the gate of the wave that is open or was judged last. */
export function drawRollout(view: RolloutView, options: DrawOptions): string[] {
  const paint = pc.createColors(options.colour);
  const shown = [...view.waves].reverse().find(({ gate }) => gate !== null);
  return [
    ...heading(view, options, paint),
    "",
    ...view.waves.map((wave) => waveLine(wave, options, paint)),
    ...(shown ? ["", ...gateLines(shown, options, paint)] : []),
    ...(view.counts.failed + view.counts.silent > 0 ? ["", failuresLine(view, paint)] : []),
  ].map((line) => cut(line, options.width));
}

/** Counts and states that a progress message tells, in the view that came before it. */
export function withProgress(view: RolloutView, progress: RolloutProgress): RolloutView {
  const { state, waitsFor, counts } = progress;
  const waves = view.waves.map((wave) => {
    const now = progress.waves.find((candidate) => candidate.wave === wave.wave);
    return now ? { ...wave, ...now } : wave;
  });
  return { ...view, state, waitsFor, counts, waves };
}

function heading(view: RolloutView, { now }: DrawOptions, paint: Paint): string[] {
  const { started, finished } = view;
  const time = started === null ? "" : duration((finished ?? now) - started);
  const from = view.from?.version ? ` from @${view.from.version}` : "";
  const first = [paint.bold(view.title) + from, stateText(view.state, paint), time, paint.dim(view.rollout)];
  const why = view.waitsFor === null ? view.reason : `waits for ${view.waitsFor}`;
  return [first.filter((part) => part !== "").join("   "), ...(why ? [paint.dim(why)] : [])];
}

function waveLine(wave: WaveView, options: DrawOptions, paint: Paint): string {
  const { counts } = wave;
  const name = (wave.name === "" ? `wave ${wave.wave}` : wave.name).padEnd(12).slice(0, 12);
  const bar = deviceBar(counts, Math.min(BAR_MAX, Math.max(10, options.width - 62)), paint);
  const soak =
    wave.state === "soaking" && wave.soakEnds !== null && wave.soakEnds > options.now
      ? ` ${duration(wave.soakEnds - options.now)} left`
      : "";
  const note = wave.forced ? " by hand" : wave.approval?.given === null ? " wants approval" : soak;
  return `${name} ${bar} ${stateText(wave.state, paint)}${note}  ${countsText(counts)}`;
}

/** One cell is an equal share of the wave; whoever is there has at least one. */
function deviceBar(counts: RolloutDeviceCounts, width: number, paint: Paint): string {
  const { total, active, updating, failed, cancelled, silent } = counts;
  let left = width;
  const take = (count: number): number => {
    const share = total === 0 || count === 0 ? 0 : Math.max(1, Math.round((width * count) / total));
    const cells = Math.min(left, share);
    left -= cells;
    return cells;
  };
  // What went wrong has its cell first: one of a thousand must be seen.
  const cells = {
    failed: take(failed),
    silent: take(silent),
    updating: take(updating),
    cancelled: take(cancelled),
    active: take(active),
  };
  return [
    paint.green("█").repeat(cells.active),
    paint.cyan("▒").repeat(cells.updating),
    paint.red("✖").repeat(cells.failed),
    paint.yellow("?").repeat(cells.silent),
    paint.dim("–").repeat(cells.cancelled),
    paint.dim("·").repeat(left),
  ].join("");
}

/** Reasons of which the bare word beside a number would read as something else: `wave 3`. */
const HELD_FOR: Readonly<Record<string, string>> = {
  wave: "for their wave",
  control: "held back",
  approval: "for the approval",
  schedule: "for the start",
  window: "for their window",
  rate: "for the rate of offers",
  budget: "for their site",
  priority: "for another rollout",
  retry: "to be asked again",
};

export function countsText(counts: RolloutDeviceCounts): string {
  const parts = [`${counts.active}/${counts.total} active`];
  for (const state of ["updating", "failed", "cancelled", "silent", "skipped"] as const)
    if (counts[state] > 0) parts.push(`${counts[state]} ${state}`);
  if (counts.restoring + counts.restored > 0)
    parts.push(`${counts.restored} of ${counts.restoring + counts.restored} back`);
  const holds = Object.entries(counts.holds).filter(([, count]) => (count ?? 0) > 0);
  if (counts.waiting > 0)
    parts.push(
      `${counts.waiting} waiting (${holds.map(([why, count]) => `${count} ${HELD_FOR[why] ?? why}`).join(", ") || "turn"})`,
    );
  return parts.join(", ");
}

function gateLines(wave: WaveView, options: DrawOptions, paint: Paint): string[] {
  const { gate } = wave;
  if (!gate) return [];
  const nameWidth = Math.max(...gate.tests.map(({ test }) => test.length));
  const axis = Math.min(AXIS_MAX, Math.max(12, options.width - nameWidth - 54));
  return [
    `${paint.bold(`gate of wave ${wave.wave}`)}  ${verdictText(gate.verdict, paint)}  ${paint.dim(`look ${wave.looks}`)}`,
    ...gate.tests.map(
      (test) =>
        `  ${mark(test.verdict, paint)} ${test.test.padEnd(nameWidth)} ${interval(test, axis, paint)} ${paint.dim(test.detail)}`,
    ),
  ];
}

/** `├──●──┤` between the interval's ends, `┊` at the limit; from 0 (or the lowest end) to a little beyond the largest. */
function interval({ value, low, high, limit }: GateTest, width: number, paint: Paint): string {
  if (value === null || limit === null) return paint.dim("–".padEnd(width));
  const ends = [0, value, limit, ...(low === null ? [] : [low]), ...(high === null ? [] : [high])];
  // An end that is unbounded or far out must not press everything else into one cell.
  const far = 3 * Math.max(Math.abs(limit), Math.abs(value), Number.EPSILON);
  const bounded = ends.map((end) => Math.max(-far, Math.min(far, end)));
  const least = Math.min(...bounded);
  const span = Math.max(...bounded) - least || 1;
  const at = (end: number): number => {
    const share = (Math.max(-far, Math.min(far, end)) - least) / span;
    return Math.max(0, Math.min(width - 1, Math.round(share * (width - 1))));
  };
  const cells = Array.from({ length: width }, () => " ");
  if (low !== null || high !== null) {
    const [from, to] = [low === null ? 0 : at(low), high === null ? width - 1 : at(high)];
    for (let cell = from; cell <= to; cell++) cells[cell] = "─";
    if (low !== null) cells[from] = "├";
    if (high !== null) cells[to] = "┤";
  }
  const limitAt = at(limit);
  cells[limitAt] = cells[limitAt] === " " ? "┊" : "┼";
  cells[at(value)] = "●";
  return cells.map((cell) => (cell === "┊" || cell === "┼" ? paint.yellow(cell) : cell)).join("");
}

function failuresLine({ counts }: RolloutView, paint: Paint): string {
  const parts = [
    ...(counts.failed > 0 ? [`${counts.failed} failed`] : []),
    ...(counts.silent > 0 ? [`${counts.silent} silent`] : []),
  ];
  return paint.red(parts.join(", ")) + paint.dim("   `fieldloop rollout devices ID --state failed` says why");
}

function mark(verdict: GateTest["verdict"], paint: Paint): string {
  return { pass: paint.green("✔"), fail: paint.red("✖"), inconclusive: paint.yellow("…") }[verdict];
}

function verdictText(verdict: GateTest["verdict"], paint: Paint): string {
  return { pass: paint.green, fail: paint.red, inconclusive: paint.yellow }[verdict](verdict);
}

/** A state in the colour of what it means, the same for rollouts and waves. */
export function stateText(state: string, paint: Paint = pc): string {
  if (["succeeded", "passed", "active"].includes(state)) return paint.green(state);
  if (["failed", "aborted", "rolled_back", "rolling_back"].includes(state)) return paint.red(state);
  if (["paused", "inconclusive", "awaiting_approval", "scheduled"].includes(state))
    return paint.yellow(state);
  return state === "pending" || state === "draft" ? paint.dim(state) : paint.cyan(state);
}

/** `12 s`, `3 m 05 s`, `2 h 10 m`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} m ${String(seconds % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} m`;
}

const ESCAPE = "\u001b";
/** A change of colour, or a character that takes a column. */
const PART = new RegExp(`${ESCAPE}\\[[0-9;]*m|[^${ESCAPE}]`, "gu");

/** Cuts to a number of visible columns; what changes the colour takes none. */
function cut(line: string, width: number): string {
  let visible = 0;
  let text = "";
  for (const part of line.match(PART) ?? []) {
    if (part.startsWith(ESCAPE)) text += part;
    else if (visible < width - 1) {
      text += part;
      visible++;
    } else if (visible === width - 1) {
      text += "…";
      visible++;
    }
  }
  return text;
}
