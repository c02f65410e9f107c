import { candidateProviders } from "./backends.js";
import { probe } from "./probe.js";
import { machineKey } from "./providers-key.js";
import { readRemembered, remember } from "./providers-store.js";
import type { ProbeOptions, ProviderChoice } from "./providers-types.js";

/** Under this name the result for the machine lies beside those for packages. */
const NAME = "machine";
/** A small convolution takes milliseconds; a driver may take seconds to start. */
const TIMEOUT_MS = 20_000;

/** What {@link workingProviders} needs of {@link ProbeOptions}. */
export type WorkingProvidersOptions = Pick<
  ProbeOptions,
  "directory" | "environment" | "runtimeLibrary" | "executionProviders" | "timeoutMs" | "fresh" | "signal"
>;

/**
 * Execution providers that really compute on this machine, for {@link hostFacts}: each opens and runs a small built-in model in
 * a process of its own. Remembered in `directory` until runtime, driver or machine change.
 * @returns the fastest kind first; `cpu` and `wasm` only if they work as well
 */
export async function workingProviders(options: WorkingProvidersOptions): Promise<string[]> {
  const candidates = options.executionProviders ?? candidateProviders([]);
  const key = machineKey({ ...options, threadCount: 1 }, candidates);
  const known = options.fresh === true ? undefined : readRemembered(options.directory, NAME, key);
  const choices = known ?? (await probeAll(candidates, options));
  if (known === undefined) await remember(options.directory, NAME, key, choices);
  return choices.filter((choice) => choice.correct).map((choice) => choice.executionProvider);
}

async function probeAll(
  candidates: readonly string[],
  options: WorkingProvidersOptions,
): Promise<ProviderChoice[]> {
  const choices: ProviderChoice[] = [];
  for (const executionProvider of candidates) {
    const { works, correct, medianMs, shares, reason } = await probe(
      { kind: "built-in", executionProvider },
      { timeoutMs: TIMEOUT_MS, ...options },
    );
    choices.push({
      executionProvider,
      variant: "built-in",
      works,
      correct,
      medianMs,
      shares,
      ...(reason === undefined ? {} : { reason }),
    });
  }
  return choices;
}
