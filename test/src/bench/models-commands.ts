import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { runCli } from "../kit/run-cli.js";
import type { ModelCase, RunReport } from "./models-cases.js";

const COMMAND_TIMEOUT_MS = 240_000;
const RULE = "--json";

/** `FIELDLOOP_TEST_DATA` where it names a folder with `models` and `sets`. */
export function publicData(folder: string | undefined): string | undefined {
  const isThere = folder !== undefined && ["models", "sets"].every((name) => existsSync(join(folder, name)));
  return isThere ? folder : undefined;
}

export interface ImportReport {
  readonly dir: string;
  readonly version: string;
  readonly preset: string;
  readonly task: string;
  readonly bytes: number;
  readonly golden: { readonly cases: number; readonly worstAbsoluteError: number };
  readonly warnings: readonly string[];
}

/** What `fieldloop model quantize --json` says, as far as it is read here. */
export interface QuantizeReport {
  readonly method: string;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  readonly accepted: boolean;
  readonly reasons: readonly string[];
  readonly written: string | null;
  readonly speed?: { readonly floatMs: number; readonly variantMs: number };
  readonly accuracy?: {
    readonly metric: string;
    readonly samples: number;
    readonly float: number;
    readonly variant: number;
  };
}

interface VerifyReport {
  readonly ok: boolean;
  readonly variants: readonly {
    readonly variant: string;
    readonly ok: boolean;
    readonly goldenCases?: number;
  }[];
}

/** The commands of one case, each a process of its own, in a scratch folder. */
export class ModelCommands {
  readonly #data: string;
  readonly #folder: string;

  constructor(data: string, folder: string) {
    this.#data = data;
    this.#folder = folder;
  }

  packageDir({ id }: ModelCase): string {
    return join(this.#folder, id);
  }

  import(model: ModelCase): Promise<ImportReport> {
    const file = join(this.#data, "models", model.file);
    const args = ["import", file, ...model.options, "--name", model.id, "--out", this.packageDir(model)];
    return this.#json<ImportReport>(args);
  }

  /** Every variant of a package holds its golden cases. */
  async verify(dir: string): Promise<number> {
    const { ok, variants } = await this.#json<VerifyReport>(["verify", dir]);
    if (!ok || variants.length === 0) throw new Error(`verify ${dir}: ${JSON.stringify(variants)}`);
    return variants.reduce((sum, { goldenCases }) => sum + (goldenCases ?? 0), 0);
  }

  run(model: ModelCase, variant?: string): Promise<RunReport> {
    const more = variant === undefined ? [] : ["--variant", variant];
    return this.#json<RunReport>(["run", this.packageDir(model), ...this.#inputs(model.run), ...more]);
  }

  /** The report whether the variant was taken or refused; a text where the method does not apply at all. */
  async quantize(model: ModelCase, options: readonly string[]): Promise<QuantizeReport | string> {
    const out = `${this.packageDir(model)}-quantized`;
    const args = [
      "quantize",
      this.packageDir(model),
      ...this.#inputs(options),
      "--out",
      out,
      "--threads",
      "1",
    ];
    const { code, stdout, stderr } = await runCli(["model", ...args, RULE], {
      timeoutMs: COMMAND_TIMEOUT_MS,
    });
    if (stdout.trim() !== "" && (code === 0 || code === 1)) {
      const report = JSON.parse(stdout) as QuantizeReport | { readonly error: unknown };
      if ("method" in report) return report;
    }
    const last = stderr.trim().split("\n").at(-1) ?? `ended with ${code}`;
    return last.replace(/^error /, "");
  }

  /** Median of the bare model, milliseconds. */
  async bench(model: ModelCase): Promise<number> {
    const args = ["bench", this.packageDir(model), "--seconds", "1"];
    return (await this.#json<{ bare: { p50Ms: number } }>(args)).bare.p50Ms;
  }

  #inputs(parts: readonly string[]): string[] {
    return parts.map((part) => part.replaceAll("DATA/", `${join(this.#data, "sets")}/`));
  }

  async #json<T>(args: readonly string[]): Promise<T> {
    const { code, stdout, stderr } = await runCli(["model", ...args, RULE], {
      timeoutMs: COMMAND_TIMEOUT_MS,
    });
    if (code !== 0) throw new Error(`fieldloop model ${args.join(" ")} ended with ${code}: ${stderr.trim()}`);
    return JSON.parse(stdout) as T;
  }
}

/** The import command as a person types it beside the file. */
export function importCommand({ file, options }: ModelCase): string {
  return ["fieldloop model import", basename(file), ...options].join(" ");
}
