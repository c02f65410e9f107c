import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { PersistPoint } from "@fieldloop/device-agent";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { writeTinyPackage } from "../kit/tiny-package.js";
import { assignmentOf, desiredOf, FaultDevice, type FaultDeviceOptions } from "./fault-device.js";
import { artifactsOf, MemoryServer } from "./memory-server.js";

/** Packages, a server that has them, and state folders as devices leave them: what every injection begins with. */
export class Stage {
  readonly path = mkdtempSync(join(tmpdir(), "fieldloop-faults-"));
  readonly packages: ModelPackage[] = [];
  #count = 0;
  #artifacts: ReadonlyMap<string, Uint8Array> | undefined;
  readonly #templates = new Map<string, Promise<string>>();

  /**
   * `hidden` makes the file of version 2 larger, see `TinyPackageOptions`. Where versions are `alike` it makes version 1's larger too, and
   * version 2 is version 1, its weights moved a little.
   */
  async open(hidden = 0, { alike = false } = {}): Promise<void> {
    // Version 3 has the files of version 0, and nothing but its number is new.
    for (const [version, seed] of [1, 2, alike ? 2 : 3, 1].entries()) {
      const large = version === 2 || (alike && version === 1);
      const moved = alike && version === 2 ? { moved: 1e-5 } : {};
      const options = { version: version + 1, seed, ...(large ? { hidden } : {}), ...moved };
      this.packages.push(await writeTinyPackage(join(this.path, `package-${version}`), options));
    }
  }

  close(): void {
    rmSync(this.path, { recursive: true, force: true, maxRetries: 3 });
  }

  /** A server of its own for each injection: what it does to answers is this one's alone. */
  async server(): Promise<MemoryServer> {
    this.#artifacts ??= await artifactsOf(this.packages);
    return new MemoryServer(this.#artifacts);
  }

  folder(): string {
    return join(this.path, `state-${++this.#count}`);
  }

  /** A copy of a state folder that was made once. */
  async copyOf(name: string, make: (directory: string) => Promise<void>): Promise<string> {
    let template = this.#templates.get(name);
    if (template === undefined) {
      const directory = join(this.path, `template-${name}`);
      mkdirSync(directory, { mode: 0o700 });
      // Kept before it is made: two tests at once share it.
      template = make(directory).then(() => directory);
      this.#templates.set(name, template);
    }
    const copy = this.folder();
    cpSync(await template, copy, { recursive: true });
    return copy;
  }

  versionOf(packageSha256: string | undefined): number {
    return this.packages.findIndex((made) => made.packageSha256 === packageSha256);
  }

  device(server: MemoryServer, directory: string, options: Partial<FaultDeviceOptions> = {}): FaultDevice {
    return new FaultDevice({ server, directory, ...options });
  }

  /** A device on which version 1 is active, and version 0 was before. */
  updated = (): Promise<string> =>
    this.copyOf("updated", async (directory) => {
      const device = this.device(await this.server(), directory);
      await device.start();
      for (const version of [0, 1]) {
        const assignment = assignmentOf(this.packages[version]!, `d${version}`);
        device.receive(desiredOf(version + 1, [assignment]));
        await device.settled(`d${version}`);
      }
      await device.stop();
    });

  empty = (): Promise<string> => this.copyOf("empty", () => Promise.resolve());
}

/** Names in a folder of the state; none where it is not there. */
export function namesIn(...path: string[]): string[] {
  try {
    return readdirSync(join(...path)).sort();
  } catch {
    return [];
  }
}

/** Where the injections of a file of tests are counted, and which persist points they were at. */
export class Table {
  readonly points = new Set<PersistPoint>();
  readonly #rows = new Map<string, Map<string, number>>();

  count(row: string, end: string): void {
    const ends = this.#rows.get(row) ?? new Map<string, number>();
    this.#rows.set(row, ends);
    ends.set(end, (ends.get(end) ?? 0) + 1);
  }

  get total(): number {
    return [...this.#rows.values()].reduce(
      (sum, ends) => sum + [...ends.values()].reduce((a, b) => a + b, 0),
      0,
    );
  }

  toString(): string {
    const lines = [...this.#rows].map(([row, ends]) => {
      const total = [...ends.values()].reduce((a, b) => a + b, 0);
      const parts = [...ends].sort(([a], [b]) => a.localeCompare(b)).map(([end, count]) => `${end} ${count}`);
      return `${row.padEnd(34)} ${String(total).padStart(5)}   ${parts.join("   ")}`;
    });
    return [
      `${"injection".padEnd(34)} count   how they ended`,
      ...lines,
      `${"all".padEnd(34)} ${String(this.total).padStart(5)}`,
    ].join("\n");
  }
}
