import { BAD_VERSIONS, LOOKS, type RolloutOutcome, type WaveOutcome } from "../kit/simulated-gate.js";
import { runJobs } from "./parallel.js";
import { median, progress, tell, type Figure } from "./report.js";
import { GATES } from "./seeded-jobs.js";

const PLAIN = ["plain limits", "plain limits that forgive three measurements", "wide plain limits"] as const;

/**
 * Seeded rollouts to a fleet whose devices differ, judged by the gate as the engine calls it (`judgeHealth` at each look, `judgeGate`
 * at the last), by the engine itself, and by plain limits beside it.
 */
export async function runSeededRollouts(runs: number): Promise<Figure[]> {
  const figures = tell(await goodFigures(runs));
  for (const name of Object.keys(BAD_VERSIONS) as (keyof typeof BAD_VERSIONS)[]) {
    figures.push(...tell(await badFigures(name, runs)));
  }
  return figures;
}

function share(waves: readonly WaveOutcome[], verdict: string): number {
  return (100 * waves.filter((wave) => wave.verdict === verdict).length) / waves.length;
}

/** The same first waves by the engine's own steps: its plan, offers, reports, silence and looks. */
async function engineFigure(version: keyof typeof BAD_VERSIONS | null, runs: number): Promise<Figure> {
  const waves = await runJobs<"engine">(
    Array.from({ length: runs }, (_, run) => ({ kind: "engine", version, run })),
  );
  const stopped = waves.filter(({ state }) => state === "failed").length;
  return {
    id: `engine.${version ?? "good"}.stopped`,
    what: `${version ?? "good"} version stopped in its canary wave by the engine, ${runs} runs`,
    value: (100 * stopped) / runs,
    unit: "%",
    bar: version === null ? { at: "most", value: 5 } : { at: "least", value: 95 },
  };
}

async function goodFigures(runs: number): Promise<Figure[]> {
  progress(`gates: a good version, ${runs} first waves of 500 devices against 3,000`);
  const all = await runJobs<"rollout">(
    Array.from({ length: runs }, (_, run) => {
      return { kind: "rollout", version: null, run, gates: GATES.length, firstOnly: true } as const;
    }),
  );
  const waves = all.map((outcomes) => outcomes.map(({ first }) => first));
  const [ours, ...plain] = GATES.map((_, at) => waves.map((outcomes) => outcomes[at]!));
  return [
    await engineFigure(null, runs),
    {
      id: "gate.good.stopped",
      what: `a good version stopped in its first wave, ${LOOKS} looks`,
      value: share(ours!, "fail"),
      unit: "%",
      bar: { at: "most", value: 5 },
    },
    {
      id: "gate.good.inconclusive",
      what: "  left inconclusive after a day",
      value: share(ours!, "inconclusive"),
      unit: "%",
    },
    ...plain.map(
      (outcomes, at): Figure => ({
        id: `gate.good.plain.${at}`,
        what: `  stopped by ${PLAIN[at]!}`,
        value: share(outcomes, "fail"),
        unit: "%",
      }),
    ),
  ];
}

/** Rollouts in which plain limits are tried too: they let bad versions into second waves, which take long. */
const COMPARED_RUNS = 24;

async function badFigures(name: keyof typeof BAD_VERSIONS, runs: number): Promise<Figure[]> {
  const compared = Math.min(runs, COMPARED_RUNS);
  progress(`gates: the ${name} version, ${runs} rollouts, ${compared} of them by plain limits too`);
  const all = await runJobs<"rollout">(
    Array.from({ length: runs }, (_, run) => {
      const gates = run < compared ? GATES.length : 1;
      return { kind: "rollout", version: name, run, gates, firstOnly: false } as const;
    }),
  );
  const ours = all.map((outcomes) => outcomes[0]!);
  const [, strict, , wide] = GATES.map((_, at) => all.slice(0, compared).map((outcomes) => outcomes[at]!));
  const firstOf = (outcomes: readonly RolloutOutcome[]): WaveOutcome[] => outcomes.map(({ first }) => first);
  const exposed = (outcomes: readonly RolloutOutcome[]): number => median(outcomes.map((one) => one.exposed));
  const stopping = firstOf(ours).filter(({ verdict }) => verdict === "fail");
  return [
    await engineFigure(name, runs),
    {
      id: `gate.${name}.stopped`,
      what: `${name} version stopped in its first wave`,
      value: share(firstOf(ours), "fail"),
      unit: "%",
      peer: { what: "% by wide plain limits", value: share(firstOf(wide!), "fail") },
      bar: { at: "least", value: 95 },
    },
    {
      id: `gate.${name}.hours`,
      what: "  after so long, median",
      value: (24 * median(stopping.map(({ look }) => look))) / LOOKS,
      unit: "h",
    },
    {
      id: `gate.${name}.exposed`,
      what: "  devices of 10,000 exposed, median",
      value: exposed(ours),
      unit: "devices",
      peer: { what: "by wide plain limits", value: exposed(wide!) },
    },
    {
      id: `gate.${name}.exposed.plain`,
      what: `  by ${PLAIN[0]}, which stop good versions too`,
      value: exposed(strict!),
      unit: "devices",
    },
  ];
}
