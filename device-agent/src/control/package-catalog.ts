import { decidingHeadOf, type Manifest } from "@fieldloop/protocol";
import type { PackageStore } from "./package-store.js";

/** What the local interface says about a package on this device's disk. */
export interface CatalogEntry {
  readonly packageSha256: string;
  readonly model: string;
  readonly version: number;
  /** Of the head whose class a prediction has. */
  readonly labels: readonly string[];
  /** Of the boxes, where the model finds any. */
  readonly boxLabels: readonly string[];
  /** The largest way to run it, on disk. */
  readonly modelBytes: number;
}

/** The installed packages in a few words each: a package never changes, so its manifest is read once. */
export class PackageCatalog {
  readonly #packages: PackageStore;
  readonly #entries = new Map<string, CatalogEntry>();

  constructor(packages: PackageStore) {
    this.#packages = packages;
  }

  /** By name, the newest version first. */
  async list(): Promise<CatalogEntry[]> {
    const installed = await this.#packages.list();
    for (const packageSha256 of this.#entries.keys()) {
      if (!installed.includes(packageSha256)) this.#entries.delete(packageSha256);
    }
    const entries: CatalogEntry[] = [];
    for (const packageSha256 of installed) {
      const entry = await this.of(packageSha256);
      if (entry) entries.push(entry);
    }
    return entries.sort((a, b) => (a.model < b.model ? -1 : a.model > b.model ? 1 : b.version - a.version));
  }

  /** Undefined where it is not installed. */
  async of(packageSha256: string): Promise<CatalogEntry | undefined> {
    const known = this.#entries.get(packageSha256);
    if (known) return known;
    const manifest = await this.#packages.manifestOf(packageSha256);
    if (!manifest) return undefined;
    const entry = entryOf(packageSha256, manifest);
    this.#entries.set(packageSha256, entry);
    return entry;
  }
}

function entryOf(packageSha256: string, manifest: Manifest): CatalogEntry {
  const { model, version, variants, nodes, heads } = manifest;
  const largest = (files: readonly { readonly bytes: number }[]): number =>
    Math.max(...files.map(({ bytes }) => bytes));
  const allHeads = [...heads, ...nodes.flatMap((node) => node.heads)];
  const detection = allHeads.find((head) => head.kind === "detection");
  return {
    packageSha256,
    model,
    version,
    labels: decidingHeadOf(manifest)?.head.labels ?? [],
    boxLabels: detection?.kind === "detection" ? detection.labels : [],
    modelBytes: [variants, ...nodes.map((node) => node.variants)].reduce(
      (sum, files) => sum + largest(files),
      0,
    ),
  };
}
