import { readFileSync, readdirSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { scratchFolder } from "../testing/package.test.kit.js";
import { type DeviceFiles, nodeFiles } from "./device-files.js";
import { Durable, type PersistPoint } from "./durable.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
beforeEach(async () => {
  folder = await scratchFolder();
});
afterEach(() => folder.remove());

const SOURCES = fileURLToPath(new URL("../../src/control/", import.meta.url));
/** Where the modules begin that work for an update. */
const ROOTS = ["updater.ts", "lane-updaters.ts", "desired-follower.ts", "provider-plans.ts", "bandwidth.ts"];
/** The one module that may. */
const ALLOWED = "device-files.ts";
const WRITES =
  /\b(appendFile|copyFile|cp|createWriteStream|link|mkdir|mkdtemp|open|rename|rm|rmdir|symlink|truncate|unlink|write|writeFile|writev)(Sync)?\b/;
const OUR_WRITES =
  /\b(writeFileAtomic|writeJsonFile|readJsonFile|ensureDirectory|unlinkIfThere|syncDirectory)\b/;

interface Import {
  readonly names: string;
  readonly module: string;
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(SOURCES, file), "utf8");
  const imports = text.matchAll(/^(?:import|export)\s+(?!type\b)([^;]*?)\s*from\s+"([^"]+)";/gms);
  return [...imports].map((match) => ({ names: match[1]!, module: match[2]! }));
}

/** Every module of this folder that these need, themselves included. */
function reachable(roots: readonly string[]): string[] {
  const found = new Set<string>();
  const visit = (file: string): void => {
    if (found.has(file)) return;
    found.add(file);
    for (const { module } of importsOf(file)) {
      if (module.startsWith("./")) visit(module.slice(2).replace(/\.js$/, ".ts"));
    }
  };
  roots.forEach(visit);
  return [...found];
}

describe("writes of the update", () => {
  it("go through the one module that names their points, and nowhere past it", () => {
    const modules = reachable(ROOTS);
    expect(modules).toEqual(
      expect.arrayContaining(["package-store.ts", "deployment-file.ts", "download.ts"]),
    );
    const past = modules
      // What `files.js` writes is known by the names that are imported from it.
      .filter((file) => file !== ALLOWED && file !== "files.ts")
      .flatMap((file) =>
        importsOf(file)
          .filter(({ names, module }) =>
            /^node:fs(\/promises)?$/.test(module)
              ? WRITES.test(names)
              : module === "./files.js" && OUR_WRITES.test(names),
          )
          .map(({ names, module }) => `${file} imports ${names.replace(/\s+/g, " ")} from ${module}`),
      );
    expect(past).toEqual([]);
    // A namespace would hide what is used of it.
    const whole = modules.flatMap((file) =>
      importsOf(file).filter(({ names, module }) => module.startsWith("node:fs") && names.includes("*")),
    );
    expect(whole).toEqual([]);
  });

  it("and each point has one name, told before and after", async () => {
    const told: string[] = [];
    const durable = new Durable(nodeFiles, (point, phase) => void told.push(`${phase} ${point}`));
    await durable.writeJson("desired", join(folder.path, "a.json"), { a: 1 });
    await durable.makeDirectory("staging_folder", join(folder.path, "x", "y"));
    await durable.remove("staging_drop", join(folder.path, "x"));
    await durable.remove("staging_drop", join(folder.path, "nothing"));
    expect(told).toEqual([
      ...["before desired", "after desired"],
      ...["before staging_folder", "after staging_folder", "before staging_folder", "after staging_folder"],
      ...["before staging_drop", "after staging_drop"],
    ]);
    expect(readdirSync(folder.path)).toEqual(["a.json"]);
  });
});

describe("a durable write", () => {
  it("syncs content before name, and name before it says so", async () => {
    const calls: string[] = [];
    const files = recorded(calls);
    await new Durable(files).writeFile("desired", join(folder.path, "a"), "text");
    expect(calls).toEqual(["open a.tmp", "write", "sync", "rename a", "syncDirectory"]);
    calls.length = 0;
    await mkdir(join(folder.path, "from"));
    await writeFile(join(folder.path, "from", "b"), "b");
    await new Durable(files).rename("file_keep", join(folder.path, "from", "b"), join(folder.path, "b"));
    expect(calls).toEqual(["rename b", "syncDirectory", "syncDirectory"]);
  });

  const codes: [string, string][] = [
    ["ENOSPC", "storage_full"],
    ["EDQUOT", "storage_full"],
    ["EIO", "storage_failed"],
    ["EROFS", "storage_failed"],
  ];
  it.each(codes)("that meets %s says %s, and the old file stays", async (code, expected) => {
    const path = join(folder.path, "a.json");
    await new Durable().writeJson("desired", path, { version: 1 });
    const files: DeviceFiles = {
      ...nodeFiles,
      open: () => Promise.reject(Object.assign(new Error(code), { code })),
    };
    const written = new Durable(files).writeJson("desired", path, { version: 2 });
    await expect(written).rejects.toMatchObject({ code: expected });
    expect(JSON.parse(await readFile(path, "utf8"))).toEqual({ version: 1 });
  });

  it("of a file that does not parse keeps it aside and tells it", async () => {
    const path = join(folder.path, "a.json");
    const points: PersistPoint[] = [];
    const told: string[] = [];
    await writeFile(path, "{");
    const durable = new Durable(nodeFiles, (point) => void points.push(point));
    expect(await durable.readJson(path, z.object({}), (message) => void told.push(message))).toBeUndefined();
    expect(readdirSync(folder.path)).toEqual(["a.json.corrupt"]);
    expect(points).toEqual(["set_aside", "set_aside"]);
    expect(told).toHaveLength(1);
    expect(await durable.readJson(path, z.object({}), () => undefined)).toBeUndefined();
  });
});

/** The real files, with each call noted. */
function recorded(calls: string[]): DeviceFiles {
  const nameOf = (path: string): string => path.slice(path.lastIndexOf("/") + 1);
  return {
    ...nodeFiles,
    open: async (path, how) => {
      calls.push(`open ${nameOf(path)}`);
      const file = await nodeFiles.open(path, how);
      const noted = (name: string, work: () => Promise<void>) => (): Promise<void> => {
        calls.push(name);
        return work();
      };
      return {
        write: (bytes) => noted("write", () => file.write(bytes))(),
        sync: noted("sync", () => file.sync()),
        close: () => file.close(),
      };
    },
    rename: (from, to) => {
      calls.push(`rename ${nameOf(to)}`);
      return nodeFiles.rename(from, to);
    },
    syncDirectory: (path) => {
      calls.push("syncDirectory");
      return nodeFiles.syncDirectory(path);
    },
  };
}
