import type { Manifest, Variant } from "@fieldloop/protocol";
import { FieldloopError } from "@fieldloop/protocol";
import { precisionRank } from "../package/variant.js";
import { isOipProvider } from "../oip/provider-name.js";
import { candidateProviders } from "./backends.js";
import { openPackage } from "./package.js";
import { probePair } from "./probe.js";
import { machineKey } from "./providers-key.js";
import { readRemembered, remember } from "./providers-store.js";
import type { ProbeOptions, ProviderChoice, ProviderChoices } from "./providers-types.js";

/** Pairs that are tried for one package, at most: what comes later in the order is left out. */
export const PROBED_PAIRS_MAX = 32;
/** Medians this close are the same speed as far as a short measurement can tell: then the more exact numbers win. */
export const SAME_SPEED_RATIO = 1.05;
/** A pair this much slower than the fastest one may have been measured while the machine was busy: it is timed again. */
const DOUBTFUL_RATIO = 2;

/**
 * Tries every execution provider of this machine with every variant of a package that may suit it, each pair in a process
 * of its own (a bad driver kills that process and nothing else), and ranks what gave the golden results by its speed. The
 * result is remembered in `directory` per package, runtime and driver version and machine.
 * @throws FieldloopError as `openPackage`; `cancelled`; that a pair fails is no error but its `reason`
 */
export async function chooseProviders(packageDir: string, options: ProbeOptions): Promise<ProviderChoices> {
  const pkg = await openPackage(packageDir, { purpose: "running" });
  const { packageSha256 } = pkg;
  const candidates = options.executionProviders ?? candidateProviders(options.endpoints ?? []);
  const key = machineKey(options, [packageSha256, ...candidates]);
  const known = options.fresh === true ? [] : (readRemembered(options.directory, packageSha256, key) ?? []);
  const until = performance.now() + (options.totalMs ?? Number.POSITIVE_INFINITY);
  /** Timed now, not before. */
  const fresh: ProviderChoice[] = [];
  let probed = 0;
  const choices: ProviderChoice[] = [];
  const missing = new Map<string, ProviderChoice>();
  for (const { executionProvider, variant } of pairsOf(pkg.manifest, candidates)) {
    if (options.signal?.aborted)
      throw new FieldloopError("cancelled", "Probe execution providers: cancelled");
    const before = known.find(
      (choice) => choice.executionProvider === executionProvider && choice.variant === variant.name,
    );
    if (before !== undefined) {
      choices.push(before);
      continue;
    }
    if (performance.now() > until) break;
    probed++;
    const lacks = missing.get(executionProvider);
    if (lacks === undefined) options.progress?.(executionProvider, variant.name);
    const choice =
      lacks === undefined
        ? await probePair(packageDir, executionProvider, variant.name, options)
        : { ...lacks, variant: variant.name };
    // What this machine lacks, it lacks for every variant.
    if (isLacking(choice)) missing.set(executionProvider, choice);
    if (choice.medianMs !== null) fresh.push(choice);
    choices.push(choice);
  }
  await timeAgain(packageDir, choices, fresh, until, options);
  if (options.signal?.aborted) throw new FieldloopError("cancelled", "Probe execution providers: cancelled");
  if (probed > 0) await remember(options.directory, packageSha256, key, choices.filter(isLasting));
  return { packageSha256, key, ...ranked(pkg.manifest, choices), remembered: probed === 0 };
}

/** What one variant says of all: the provider is not here, or its driver never comes to an end. */
function isLacking({ executionProvider, reason }: ProviderChoice): boolean {
  return (
    reason?.code === "provider_unavailable" || (reason?.code === "timed_out" && executionProvider !== "cpu")
  );
}

/**
 * Medians that were taken one after the other on a machine with other work say little about pairs that are nearly as fast: those are
 * timed once more, in the other order, and the better time of each counts. Replaces them in `choices`.
 */
async function timeAgain(
  packageDir: string,
  choices: ProviderChoice[],
  fresh: readonly ProviderChoice[],
  until: number,
  options: ProbeOptions,
): Promise<void> {
  const correct = choices.filter((choice) => choice.correct && choice.medianMs !== null);
  const fastest = Math.min(...correct.map(({ medianMs }) => medianMs!));
  const doubtful = correct.filter(
    (choice) => fresh.includes(choice) && choice.medianMs! <= fastest * DOUBTFUL_RATIO,
  );
  if (doubtful.length < 2) return;
  for (const choice of doubtful.reverse()) {
    if (options.signal?.aborted || performance.now() > until) return;
    const { executionProvider, variant } = choice;
    const again = await probePair(packageDir, executionProvider, variant, options);
    const at = choices.indexOf(choice);
    if (again.correct) {
      const medianMs = Math.min(choice.medianMs!, again.medianMs ?? Number.POSITIVE_INFINITY);
      choices[at] = { ...choice, medianMs };
      // One that was right and is not any more is not to be relied on; one that ran out of time has had its turn.
    } else if (again.reason?.code !== "timed_out") choices[at] = again;
  }
}

/** A server that does not answer now may do so at the next start: nothing of this machine has to change for it. */
function isLasting({ executionProvider, works }: ProviderChoice): boolean {
  return works || !isOipProvider(executionProvider);
}

/**
 * What is tried. A provider runs the variants that name it, and any in floats, which it may compute as well: the golden cases
 * tell. `wasm` runs what is made for `cpu`. A served model is one model, so an endpoint is tried once, held to the tolerances
 * of the variant that names `oip`, or else of the least exact one.
 */
export function pairsOf(
  manifest: Pick<Manifest, "variants">,
  candidates: readonly string[],
): { executionProvider: string; variant: Variant }[] {
  const pairs = candidates.flatMap((executionProvider) => {
    if (isOipProvider(executionProvider)) {
      const made = manifest.variants.find((variant) => variant.executionProviders.includes("oip"));
      const loosest = [...manifest.variants].sort((a, b) => precisionRank(b) - precisionRank(a))[0]!;
      return [{ executionProvider, variant: made ?? loosest }];
    }
    const wanted = executionProvider === "wasm" ? ["wasm", "cpu"] : [executionProvider];
    return manifest.variants
      .filter(
        ({ executionProviders, precision }) =>
          executionProviders.some((name) => wanted.includes(name)) ||
          (executionProvider !== "cpu" && (precision === "fp32" || precision === "fp16")),
      )
      .map((variant) => ({ executionProvider, variant }));
  });
  return pairs.slice(0, PROBED_PAIRS_MAX);
}

/** Correct pairs first, the fastest of them in front. */
export function ranked(
  manifest: Pick<Manifest, "variants">,
  choices: readonly ProviderChoice[],
): Pick<ProviderChoices, "choices" | "chosen"> {
  const correct = choices
    .filter((choice) => choice.correct)
    .sort((a, b) => (a.medianMs ?? Number.MAX_VALUE) - (b.medianMs ?? Number.MAX_VALUE));
  const rest = choices.filter((choice) => !choice.correct);
  const fastest = correct[0];
  if (fastest === undefined) return { choices: rest, chosen: undefined };
  const exactness = ({ variant }: ProviderChoice): number =>
    precisionRank(manifest.variants.find(({ name }) => name === variant) ?? { precision: "int4" });
  const asFast = correct.filter(
    ({ medianMs }) => (medianMs ?? Number.MAX_VALUE) <= (fastest.medianMs ?? 0) * SAME_SPEED_RATIO,
  );
  const chosen = asFast.reduce(
    (best, choice) => (exactness(choice) < exactness(best) ? choice : best),
    fastest,
  );
  return { choices: [chosen, ...correct.filter((choice) => choice !== chosen), ...rest], chosen };
}
