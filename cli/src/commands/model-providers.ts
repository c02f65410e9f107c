import { homedir } from "node:os";
import { join } from "node:path";
import { isOipProvider } from "@fieldloop/runtime";
import type { ProviderChoice } from "@fieldloop/runtime/node";
import type { Command } from "commander";
import { EXIT, action, note, printJson, printTable } from "../output.js";
import { parsePositiveInteger } from "./model-options.js";

interface ProvidersFlags {
  readonly threads: number;
  readonly endpoint: readonly string[];
  readonly only?: readonly string[];
  readonly timeout: number;
  readonly runs: number;
  readonly cache: string;
  readonly fresh?: boolean;
  readonly json?: boolean;
}

const COLLECT = (value: string, before: readonly string[]): string[] => [...before, value];

export function registerModelProviders(model: Command): void {
  model
    .command("providers")
    .description("Try a package on every execution provider of this machine: works, correct, how fast")
    .argument("<dir>", "package folder")
    .option(
      "--endpoint <name>",
      "also a served model, e.g. oip+http://127.0.0.1:8000/v2/models/parts (repeatable)",
      COLLECT,
      [],
    )
    .option("--only <name...>", "these execution providers and no others")
    .option("--threads <n>", "threads inside one operator", parsePositiveInteger, 1)
    .option("--runs <n>", "timed runs of each, at most", parsePositiveInteger, 20)
    .option("--timeout <seconds>", "for each", parsePositiveInteger, 60)
    .option(
      "--cache <folder>",
      "where results are remembered",
      join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "fieldloop", "providers"),
    )
    .option("--fresh", "try again what is remembered")
    .option("--json", "result as JSON")
    .action(action(providers));
}

async function providers(dir: string, flags: ProvidersFlags): Promise<void> {
  const { checkRuntimeLibrary, chooseProviders } = await import("@fieldloop/runtime/node");
  const runtimeLibrary = process.env.FIELDLOOP_ONNXRUNTIME_LIBRARY;
  if (runtimeLibrary) await checkRuntimeLibrary(runtimeLibrary);
  const result = await chooseProviders(dir, {
    directory: flags.cache,
    threadCount: flags.threads,
    endpoints: flags.endpoint,
    environment: process.env,
    timeoutMs: flags.timeout * 1000,
    runsMax: flags.runs,
    fresh: flags.fresh ?? false,
    ...(flags.only === undefined ? {} : { executionProviders: [...flags.endpoint, ...flags.only] }),
    ...(runtimeLibrary ? { runtimeLibrary } : {}),
    progress: (executionProvider, variant) => note(`trying ${executionProvider}, ${variant}`),
  });
  if (flags.json) printJson(result);
  else {
    printTable([
      ["provider", "variant", "works", "correct", "ms", "node shares", "why not"],
      ...result.choices.map(rowOf),
    ]);
    const { chosen } = result;
    process.stdout.write(
      chosen === undefined
        ? "none gave the right results\n"
        : `chosen: ${chosen.executionProvider}, ${chosen.variant}${result.remembered ? " (remembered; --fresh tries again)" : ""}\n`,
    );
  }
  if (result.chosen === undefined) process.exitCode = EXIT.failed;
}

function rowOf(choice: ProviderChoice): string[] {
  const { executionProvider, variant, works, correct, medianMs, shares, reason } = choice;
  return [
    executionProvider,
    variant,
    works ? "yes" : "no",
    correct ? "yes" : works ? "NO" : "-",
    medianMs?.toFixed(3) ?? "-",
    shares === null
      ? isOipProvider(executionProvider) && works
        ? "the server's matter"
        : "-"
      : Object.entries(shares)
          .map(([provider, share]) => `${provider} ${Math.round(share * 100)} %`)
          .join(", "),
    reason === undefined ? "-" : `${reason.code}: ${reason.message.replace(/\s+/g, " ").slice(0, 160)}`,
  ];
}
