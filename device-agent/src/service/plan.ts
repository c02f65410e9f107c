import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { deviceIdSchema, FieldloopError } from "@fieldloop/protocol";
import { type LaneSpec, parseLaneSpecs } from "../lane-spec.js";
import type { SourceSpec } from "../source-spec.js";
import { CREDENTIALS_MARK, unitName, type UnitPlan } from "./unit.js";

export interface InstallOptions {
  /** Device id, wanted at enrolment and a part of the unit's name. */
  readonly name: string;
  readonly scope: "system" | "user";
  /** As for `fieldloop agent --source`. */
  readonly sources: readonly string[];
  readonly server: string | undefined;
  readonly token: string | undefined;
  /** Further options of `fieldloop agent`, as they are. */
  readonly agentArguments: readonly string[];
  readonly account: string | undefined;
  /** Let it use the device's GPU or NPU. */
  readonly accelerator: boolean;
  /** Further devices: `/dev/ttyUSB0`, `char-alsa`. */
  readonly devices: readonly string[];
  /** Further paths that it reads. */
  readonly readOnlyPaths: readonly string[];
  readonly memoryBytesMax: number;
  /** An image of a system instead of the running one, as for `systemctl --root`. */
  readonly root: string | undefined;
}

/** What is known of this machine; tests say it themselves. */
export interface Machine {
  /** Node and the command line's own file. */
  readonly program: readonly string[];
  readonly groups: readonly string[];
  readonly notifies: boolean;
}

export interface InstallPlan {
  readonly unit: UnitPlan;
  readonly unitName: string;
  readonly unitPath: string;
  readonly environmentPath: string;
  readonly scope: "system" | "user";
  readonly root: string | undefined;
  readonly token: string | undefined;
  /** Things that a person should know. */
  readonly notes: readonly string[];
}

const HOME_FOLDERS = ["/home/", "/root/", "/run/user/"];
/** What the unit says by itself, or what its file, which everybody can read, may not hold. */
const OWN_OPTIONS = ["--name", "--source", "--server", "--enroll", "--state"];
const TOKEN_PATTERN = /^[\x21-\x7e]{1,512}$/;

/** @throws FieldloopError `invalid_argument`, `source_unknown` */
export function planInstall(options: InstallOptions, machine: Machine): InstallPlan {
  const { name, scope, root, token, server } = options;
  if (!deviceIdSchema.safeParse(name).success) throw refused(`"${name}" is no device id`);
  if (token !== undefined && !TOKEN_PATTERN.test(token)) throw refused("the token is none");
  if (scope === "user" && options.account !== undefined) throw refused("a user's unit runs as that user");
  for (const text of textsOf(options)) {
    // A line of a unit file is a setting of its own.
    if (hasControl(text)) throw refused(`a line end or control character in "${text.slice(0, 80)}"`);
  }
  const own = options.agentArguments.find((text) => OWN_OPTIONS.includes(text.split("=")[0]!));
  if (own !== undefined) throw refused(`${own.split("=")[0]!} stands before --, not behind it`);
  const lanes = parseLaneSpecs(options.sources);
  const { sources, credentials } = takeLogins(options.sources, lanes, scope);
  const needs = needsOf(lanes, options, machine);
  const unitFile = unitName(name);
  const folder = scope === "system" ? "/etc/systemd/system" : join(homedir(), ".config/systemd/user");
  const environment =
    scope === "system" ? `/etc/fieldloop/${name}.env` : join(homedir(), ".config/fieldloop", `${name}.env`);
  return {
    unit: {
      ...{ name, scope, sources, credentials },
      command: [
        ...machine.program,
        ...["agent", "--name", name],
        ...(server === undefined ? [] : ["--server", server]),
        ...options.agentArguments,
      ],
      account: options.account,
      supplementaryGroups: needs.groups,
      devices: needs.devices,
      readOnlyPaths: pathsInHomes([...machine.program, ...pathsOf(lanes), ...options.readOnlyPaths]),
      environmentPath: environment,
      memoryBytesMax: options.memoryBytesMax,
      notifies: machine.notifies,
    },
    unitName: unitFile,
    unitPath: join(root ?? "/", folder, unitFile),
    environmentPath: join(root ?? "/", environment),
    ...{ scope, root, token, notes: needs.notes },
  };
}

function textsOf(options: InstallOptions): string[] {
  const { sources, server, agentArguments, account, devices, readOnlyPaths } = options;
  return [...sources, server ?? "", ...agentArguments, account ?? "", ...devices, ...readOnlyPaths];
}

function hasControl(text: string): boolean {
  return Array.from(text).some((character) => character < " " || character === "\u007f");
}

/**
 * A unit file is readable by everybody: it holds no password. Of a login file the service gets a copy from systemd, which may read it
 * when the service's own user may not.
 */
function takeLogins(
  texts: readonly string[],
  lanes: readonly LaneSpec[],
  scope: InstallOptions["scope"],
): { sources: string[]; credentials: Map<string, string> } {
  const credentials = new Map<string, string>();
  const sources = texts.map((written, at) => {
    const { source, name } = lanes[at]!;
    const text = withWholePath(written, source);
    if (!("loginPath" in source)) return text;
    if (source.password !== undefined || source.username !== undefined) {
      throw refused(`source "${name}" has a user or password in its URL: put them into a file, login=FILE`);
    }
    if (source.loginPath === undefined) return text;
    if (scope === "user")
      return text.replace(
        LOGIN_OPTION,
        `$1login=${encodeURIComponent(source.loginPath).replaceAll("$", "$$$$")}`,
      );
    const id = `login-${name}`;
    credentials.set(id, source.loginPath);
    return text.replace(LOGIN_OPTION, (_, before: string) => `${before}login=${CREDENTIALS_MARK}/${id}`);
  });
  return { sources, credentials };
}

const LOGIN_OPTION = /([?&])login=[^&]*/;

/** A service starts in another folder than the person who names a file. */
function withWholePath(text: string, source: SourceSpec): string {
  const path = pathOf(source);
  const [head = "", kind = "", rest = ""] = /^((?:[^:=?/]*=)?[a-z-]+:)([^?]*)/.exec(text) ?? [];
  if (path === undefined || rest.startsWith("/") || rest.startsWith("file://")) return text;
  return `${kind}${path}${text.slice(head.length)}`;
}

function needsOf(
  lanes: readonly LaneSpec[],
  options: InstallOptions,
  machine: Machine,
): { groups: string[]; devices: string[]; notes: string[] } {
  const groups = new Set<string>();
  const devices = new Set(options.devices.map(deviceOf));
  const notes: string[] = [];
  for (const { source } of lanes) {
    if (source.kind === "camera") {
      groups.add("video");
      devices.add("char-video4linux");
    } else if (source.kind === "audio" && source.input === "alsa") {
      groups.add("audio");
      devices.add("char-alsa");
    } else if (source.kind === "audio" && source.input === "pulse" && options.scope === "system") {
      notes.push("PulseAudio belongs to a person's session: use alsa:DEVICE, or install with --user");
    } else if (isInput(source)) {
      throw refused(`a service has no standard input: source "${source.kind}:-"`);
    }
  }
  if (options.accelerator) {
    groups.add("video").add("render");
    for (const device of ["char-drm", "char-nvidia*", "char-nvhost*", "/dev/nvmap", "char-accel"])
      devices.add(device);
  }
  // A group that is not there would keep the unit from starting.
  const known = [...groups].filter((group) => machine.groups.includes(group));
  if (!machine.notifies) {
    notes.push(
      "systemd-notify is not installed: no watchdog, and the file with the token stays until it is deleted by hand",
    );
  }
  return { groups: known, devices: [...devices], notes };
}

function deviceOf(text: string): string {
  if (/^(?:\/dev\/[\w/.:-]+|char-[\w*-]+)$/.test(text) && !text.includes("..")) return text;
  throw refused(`"${text}" is no device, wanted /dev/… or char-…`);
}

function isInput(source: SourceSpec): boolean {
  return (source.kind === "csv" || source.kind === "ndjson") && source.path === undefined;
}

function pathsOf(lanes: readonly LaneSpec[]): string[] {
  return lanes.flatMap(({ source }) => {
    const path = pathOf(source);
    if (path === undefined) return [];
    // A file may be replaced while it is followed: its folder is what stays.
    return source.kind === "csv" || source.kind === "ndjson" ? [dirname(path)] : [path];
  });
}

/** The file or folder that a source reads. */
function pathOf(source: SourceSpec): string | undefined {
  if (source.kind === "audio") return source.input === "file" ? source.name : undefined;
  return "path" in source ? source.path : undefined;
}

/** Of the paths below homes, which the unit hides, those that the agent needs. */
function pathsInHomes(paths: readonly string[]): string[] {
  const hidden = paths.filter((path) => HOME_FOLDERS.some((home) => path.startsWith(home)));
  return [...new Set(hidden.map(installationOf))].sort();
}

/** A module needs those around it: the packages that it was installed with, or the checkout that it was built in. */
function installationOf(path: string): string {
  return /^.*?\/node_modules(?=\/)/.exec(path)?.[0] ?? /^.*?(?=\/cli\/dist\/)/.exec(path)?.[0] ?? path;
}

function refused(what: string): FieldloopError {
  return new FieldloopError("invalid_argument", `Install agent: ${what}`);
}
