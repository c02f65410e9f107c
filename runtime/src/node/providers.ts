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
  if (options.fresh !== true) {
    const choices = readRemembered(options.directory, packageSha256, key);
    if (choices !== undefined)
      return { packageSha256, key, ...ranked(pkg.manifest, choices), remembered: true };
  }
  const choices: ProviderChoice[] = [];
  const missing = new Map<string, ProviderChoice>();
  for (const { executionProvider, variant } of pairsOf(pkg.manifest, candidates)) {
    if (options.signal?.aborted)
      throw new FieldloopError("cancelled", "Probe execution providers: cancelled");
    const lacks = missing.get(executionProvider);
    if (lacks === undefined) options.progress?.(executionProvider, variant.name);
    const choice =
      lacks === undefined
        ? await probePair(packageDir, executionProvider, variant.name, options)
        : { ...lacks, variant: variant.name };
    // What this machine lacks, it lacks for every variant.
    if (choice.reason?.code === "provider_unavailable") missing.set(executionProvider, choice);
    choices.push(choice);
  }
  if (options.signal?.aborted) throw new FieldloopError("cancelled", "Probe execution providers: cancelled");
  await remember(options.directory, packageSha256, key, choices);
  return { packageSha256, key, ...ranked(pkg.manifest, choices), remembered: false };
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
