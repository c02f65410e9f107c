import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { sha256Schema } from "@fieldloop/protocol";
import { z } from "zod";
import type { PackageToRun, ProviderSearch, ProviderToRun } from "../ipc.js";
import type { Durable } from "./durable.js";

/**
 * What `--provider` says: `auto` (what there is), execution providers by name, addresses of Open Inference Protocol servers; several
 * with commas between them. `cpu` alone is not searched for.
 */
export type ProviderOption = "auto" | "cpu" | (string & {});

/** Stands for the package's model in the name of a provider. */
export const MODEL_MARK = "{model}";

const FILE = "providers.json";
const PACKAGES_MAX = 64;
/** As results are remembered, one file a package. */
const MEASURED_FILE = /^[0-9a-f]{64}\.json$/;
const PROVIDER_NAME_MAX = 1_200;

const fileSchema = z.object({
  packages: z
    .array(
      z.object({
        packageSha256: sha256Schema,
        /** What it was found out under; undefined in files of earlier agents. */
        mark: z.string().max(64).optional(),
        providers: z
          .array(
            z.object({
              executionProvider: z.string().max(PROVIDER_NAME_MAX),
              variant: z.string().max(32),
              shares: z.record(z.string().max(256), z.number().min(0).max(1)).optional(),
              medianMs: z.number().min(0).optional(),
            }),
          )
          .max(64),
      }),
    )
    .max(PACKAGES_MAX),
});
type Plans = z.output<typeof fileSchema>["packages"];

/** What an agent was asked for and what it runs on: other answers may come of others. */
export interface ProviderTerms {
  readonly option: ProviderOption;
  readonly threadCount: number;
  /** Changes with drivers, runtime and machine; see `driverStamp`. */
  readonly machine: readonly string[];
}

/**
 * On what each package runs, best first, as its self test found out. A provider that took the host with it is left out until the next
 * start of the agent.
 */
export class ProviderPlans {
  readonly search: ProviderSearch | undefined;
  readonly #path: string;
  readonly #durable: Durable;
  readonly #mark: string;
  readonly #demoted = new Set<string>();
  #plans: Plans;
  #writing: Promise<void> = Promise.resolve();

  private constructor(directory: string, plans: Plans, terms: ProviderTerms, durable: Durable) {
    this.#path = join(directory, FILE);
    this.#durable = durable;
    this.#plans = plans;
    this.#mark = createHash("sha256").update(JSON.stringify(terms)).digest("hex");
    this.search = searchOf(terms.option, join(directory, "providers"), terms.threadCount);
  }

  static async load(
    directory: string,
    terms: ProviderTerms,
    durable: Durable,
    onCorrupt: (message: string) => void,
  ): Promise<ProviderPlans> {
    const file = await durable.readJson(join(directory, FILE), fileSchema, onCorrupt);
    return new ProviderPlans(directory, file?.packages ?? [], terms, durable);
  }

  /** `providers` is empty where there was nothing to choose from. */
  async remember(packageSha256: string, providers: readonly ProviderToRun[]): Promise<void> {
    const others = this.#plans.filter((plan) => plan.packageSha256 !== packageSha256);
    const plan = { packageSha256, mark: this.#mark, providers: [...providers] };
    this.#plans = [...others, plan].slice(-PACKAGES_MAX);
    // Self tests of several lanes may end together: two at once would write one file.
    const written = this.#writing.then(() => this.#write());
    this.#writing = written.catch(() => undefined);
    await written;
  }

  async #write(): Promise<void> {
    await this.#durable.writeJson("providers", this.#path, { packages: this.#plans });
    await this.#forgetOthers();
  }

  /** What was measured for packages that are long gone goes too. */
  async #forgetOthers(): Promise<void> {
    if (!this.search) return;
    const { directory } = this.search;
    const known = new Set(this.#plans.map(({ packageSha256 }) => `${packageSha256}.json`));
    for (const name of await readdir(directory).catch(() => [])) {
      if (MEASURED_FILE.test(name) && !known.has(name))
        await this.#durable.remove("providers", join(directory, name));
    }
  }

  /** True where it was found out under other terms, or not at all: what is best may be something else. */
  isOutdated(packageSha256: string): boolean {
    return this.search !== undefined && this.#planOf(packageSha256)?.mark !== this.#mark;
  }

  /** A server that was asked for did not run it when that was tried: it may have come up since. */
  lacksServer(packageSha256: string): boolean {
    const known = this.#planOf(packageSha256)?.providers;
    if (!known || !this.search) return false;
    return this.search.endpoints.some(
      (name) => !known.some(({ executionProvider }) => isNamed(executionProvider, name)),
    );
  }

  /** The package with what it is to be run on; as it is where nothing was searched for, or nothing was to choose from. */
  planFor(target: PackageToRun): PackageToRun {
    const { search } = this;
    if (!search) return target;
    const { packageSha256 } = target;
    const isOutdated = this.isOutdated(packageSha256);
    const providers = this.#planOf(packageSha256)?.providers.filter(
      (provider) =>
        !this.#demoted.has(keyOf(packageSha256, provider)) &&
        // What nobody asks for any more is not run until something better is found.
        (!isOutdated || isAskedFor(provider.executionProvider, search)),
    );
    return providers === undefined || providers.length === 0 ? target : { ...target, providers };
  }

  #planOf(packageSha256: string): Plans[number] | undefined {
    return this.#plans.find((candidate) => candidate.packageSha256 === packageSha256);
  }

  /** It ended the host: not again in this start. */
  demote(packageSha256: string, provider: ProviderToRun): void {
    this.#demoted.add(keyOf(packageSha256, provider));
  }

  /** True where the package runs on what was found best. */
  isBest(packageSha256: string, executionProvider: string): boolean {
    const best = this.#planOf(packageSha256)?.providers[0];
    return best === undefined || best.executionProvider === executionProvider;
  }
}

function searchOf(
  option: ProviderOption,
  directory: string,
  threadCount: number,
): ProviderSearch | undefined {
  if (option === "cpu") return undefined;
  const names = option.split(",").map(providerName);
  const endpoints = names.filter((name) => name.startsWith("oip+"));
  // What is asked for first; the CPU, by the same tests, to fall back to.
  const executionProviders = names.includes("auto") ? undefined : [...new Set([...names, "cpu"])];
  return { directory, threadCount, executionProviders, endpoints };
}

function isAskedFor(provider: string, { executionProviders, endpoints }: ProviderSearch): boolean {
  if (executionProviders === undefined && !provider.startsWith("oip+")) return true;
  return (executionProviders ?? endpoints).some((name) => isNamed(provider, name));
}

function isNamed(provider: string, name: string): boolean {
  const [before, after] = name.split(MODEL_MARK);
  return after === undefined ? provider === name : provider.startsWith(before!) && provider.endsWith(after);
}

/** A server is named by its address; which of its models is asked for with each package, unless the address says it. */
function providerName(text: string): string {
  const name = text.trim();
  if (!/^(?:oip\+)?(?:https?|grpcs?|unix):/.test(name)) return name;
  const address = name.startsWith("oip+") ? name : `oip+${name}`;
  if (address.includes("/v2/models/")) return address;
  const base = address.replace(/\/+$/, "");
  return address.startsWith("oip+unix:")
    ? `${base}:/v2/models/${MODEL_MARK}`
    : `${base}/v2/models/${MODEL_MARK}`;
}

function keyOf(
  packageSha256: string,
  { executionProvider, variant }: Pick<ProviderToRun, "executionProvider" | "variant">,
): string {
  return `${packageSha256} ${executionProvider} ${variant}`;
}
