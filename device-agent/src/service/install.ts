import { execFile } from "node:child_process";
import { access, constants, mkdir, readFile, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { deviceIdSchema, FieldloopError } from "@fieldloop/protocol";
import { codeOf, reasonOf, unlinkIfThere, writeFileAtomic } from "../control/files.js";
import type { InstallPlan, Machine } from "./plan.js";
import { stateFolderName, UNIT_MARK, unitName, unitText } from "./unit.js";

const run = promisify(execFile);
const COMMAND_TIMEOUT_MS = 60_000;
const RUNTIME_FOLDER = "/run/systemd/system";

export interface InstallReport {
  readonly unit: string;
  readonly unitPath: string;
  /** False where the file was there already, letter for letter. */
  readonly changed: boolean;
  readonly enabled: boolean;
  readonly started: boolean;
  readonly notes: readonly string[];
}

export interface ServicePlace {
  readonly name: string;
  readonly scope: "system" | "user";
  readonly root: string | undefined;
}

/** What {@link planInstall} wants to know of this machine. `program`: Node and the file that it runs. */
export async function inspectMachine(program: readonly string[], searchPath: string): Promise<Machine> {
  const groups = await readFile("/etc/group", "utf8").catch(() => "");
  return {
    program,
    groups: groups.split("\n").map((line) => line.split(":")[0]!),
    notifies: await isInPath("systemd-notify", searchPath),
  };
}

/**
 * Writes the unit, and the token where there is one, then enables and (re)starts it. Doing it twice changes nothing.
 * @throws FieldloopError `conflict` where the unit file is not ours, `storage_failed`, `unavailable` where systemctl fails
 */
export async function installService(
  plan: InstallPlan,
  options: { readonly start: boolean },
): Promise<InstallReport> {
  const text = unitText(plan.unit);
  const before = await readUnit(plan.unitPath);
  const changed = before !== text;
  if (plan.token !== undefined) {
    await mkdir(dirname(plan.environmentPath), { recursive: true, mode: 0o755 });
    await writeFileAtomic(plan.environmentPath, `FIELDLOOP_ENROLL=${plan.token}\n`, 0o600);
  }
  if (changed) {
    await mkdir(dirname(plan.unitPath), { recursive: true, mode: 0o755 });
    await writeFileAtomic(plan.unitPath, text, 0o644);
  }
  const runs = plan.root === undefined && (await isRunning());
  const notes = [...plan.notes];
  if (runs) await systemctl(plan, "daemon-reload");
  const enabled = await tryEnable(plan, notes);
  const started = runs && options.start;
  if (started)
    await systemctl(plan, changed || plan.token !== undefined ? "restart" : "start", plan.unitName);
  else if (!runs && plan.root === undefined)
    notes.push("systemd does not run here: the unit is written and starts with it");
  return { unit: plan.unitName, unitPath: plan.unitPath, changed, enabled, started, notes };
}

export interface UninstallReport {
  readonly unit: string;
  readonly removed: boolean;
  readonly statePath: string;
  readonly stateRemoved: boolean;
}

/** Stops and removes the unit; identity, spool and models stay unless `purge`. @throws FieldloopError `conflict`, `unavailable` */
export async function uninstallService(
  place: ServicePlace,
  options: { readonly purge: boolean },
): Promise<UninstallReport> {
  const paths = pathsOf(place);
  const there = (await readUnit(paths.unit)) !== undefined;
  const runs = place.root === undefined && (await isRunning());
  if (there) {
    if (runs) await systemctl(place, "disable", "--now", paths.unitName);
    else await systemctl(place, "disable", paths.unitName).catch(() => undefined);
    await unlinkIfThere(paths.unit);
    if (runs) await systemctl(place, "daemon-reload");
  }
  await unlinkIfThere(paths.environment);
  let stateRemoved = false;
  if (options.purge) {
    for (const path of paths.states) {
      stateRemoved ||= await stat(path).then(
        () => true,
        () => false,
      );
      await rm(path, { recursive: true, force: true });
    }
  }
  return { unit: paths.unitName, removed: there, statePath: paths.states[0]!, stateRemoved };
}

export interface ServiceStatus {
  readonly unit: string;
  readonly unitPath: string;
  readonly installed: boolean;
  /** The token was not used yet. */
  readonly tokenWaits: boolean;
  /** As systemd says it, e.g. `active`/`running`; undefined where it does not run. */
  readonly active: string | undefined;
  readonly sub: string | undefined;
  readonly pid: number | undefined;
  readonly restarts: number | undefined;
  readonly memoryBytes: number | undefined;
  readonly since: string | undefined;
}

/** @throws FieldloopError `conflict`, `unavailable` */
export async function serviceStatus(place: ServicePlace): Promise<ServiceStatus> {
  const paths = pathsOf(place);
  const installed = (await readUnit(paths.unit)) !== undefined;
  const tokenWaits = await isThere(paths.environment);
  const shown = new Map<string, string>();
  if (installed && place.root === undefined && (await isRunning())) {
    const names = "ActiveState,SubState,MainPID,NRestarts,MemoryCurrent,ActiveEnterTimestamp";
    const output = await systemctl(place, "show", `--property=${names}`, paths.unitName);
    for (const line of output.split("\n")) {
      const equals = line.indexOf("=");
      if (equals > 0) shown.set(line.slice(0, equals), line.slice(equals + 1));
    }
  }
  const count = (name: string): number | undefined => {
    const value = shown.get(name);
    return value !== undefined && /^\d{1,15}$/.test(value) ? Number(value) : undefined;
  };
  return {
    ...{ unit: paths.unitName, unitPath: paths.unit, installed, tokenWaits },
    ...{ active: shown.get("ActiveState"), sub: shown.get("SubState") },
    ...{ pid: count("MainPID"), restarts: count("NRestarts"), memoryBytes: count("MemoryCurrent") },
    since: shown.get("ActiveEnterTimestamp"),
  };
}

function pathsOf(place: ServicePlace): {
  unitName: string;
  unit: string;
  environment: string;
  states: string[];
} {
  const { name, scope } = place;
  if (!deviceIdSchema.safeParse(name).success) {
    throw new FieldloopError("invalid_argument", `Find agent: "${name}" is no device id`);
  }
  const root = place.root ?? "/";
  const file = unitName(name);
  const folder = stateFolderName(name);
  if (scope === "user") {
    const config = join(root, homedir(), ".config");
    return {
      unitName: file,
      unit: join(config, "systemd/user", file),
      environment: join(config, "fieldloop", `${name}.env`),
      // The user's state folder is the configuration folder before systemd 254.
      states: [join(root, homedir(), ".local/state", folder), join(config, folder)],
    };
  }
  return {
    unitName: file,
    unit: join(root, "/etc/systemd/system", file),
    environment: join(root, "/etc/fieldloop", `${name}.env`),
    // With a dynamic user the first is a link to the second.
    states: [join(root, "/var/lib", folder), join(root, "/var/lib/private", folder)],
  };
}

async function readUnit(path: string): Promise<string | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (codeOf(cause) === "ENOENT") return undefined;
    throw new FieldloopError("storage_failed", `Read "${path}": ${reasonOf(cause)}`, { cause });
  }
  if (text.startsWith(UNIT_MARK)) return text;
  throw new FieldloopError(
    "conflict",
    `Install agent: "${path}" is there and was not written by this command`,
  );
}

async function tryEnable(plan: InstallPlan, notes: string[]): Promise<boolean> {
  try {
    await systemctl(plan, "enable", plan.unitName);
    return true;
  } catch (error) {
    notes.push(`the unit is not enabled: ${reasonOf(error)}`);
    return false;
  }
}

async function systemctl(
  place: { readonly scope: "system" | "user"; readonly root: string | undefined },
  ...words: string[]
): Promise<string> {
  const where = [
    ...(place.scope === "user" ? ["--user"] : []),
    ...(place.root === undefined ? [] : [`--root=${place.root}`]),
  ];
  try {
    const { stdout } = await run("systemctl", ["--no-pager", "--quiet", ...where, ...words], {
      timeout: COMMAND_TIMEOUT_MS,
    });
    return stdout;
  } catch (cause) {
    const said = cause instanceof Error && "stderr" in cause ? String(cause.stderr).trim() : "";
    const what = codeOf(cause) === "ENOENT" ? "systemctl is not installed" : said || reasonOf(cause);
    throw new FieldloopError("unavailable", `systemctl ${words.join(" ")}: ${what.slice(0, 500)}`, { cause });
  }
}

/** sd_booted(3) */
function isRunning(): Promise<boolean> {
  return isThere(RUNTIME_FOLDER);
}

function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function isInPath(program: string, searchPath: string): Promise<boolean> {
  for (const folder of searchPath.split(delimiter)) {
    const found = await access(join(folder, program), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return true;
  }
  return false;
}
