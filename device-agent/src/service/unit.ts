/**
 * The systemd unit of an agent.
 *
 * Parties: the device's owner (trusted), the fleet server (trusted by key), whoever feeds frames, models and packages (not trusted: they
 * pass through native libraries). Should such a library be taken over, the unit bounds what that is worth: no privileges, no other
 * process, no home, a read-only system, no devices but those of its sources, its own folder of state.
 *
 * Not set: MemoryDenyWriteExecute, because V8 compiles JavaScript and some execution providers compile kernels as they run.
 */
export interface UnitPlan {
  /** Of the device; a part of the unit's name. */
  readonly name: string;
  readonly scope: "system" | "user";
  /** Program and arguments, without the sources. */
  readonly command: readonly string[];
  /** As for `--source`; logins already name their credential. */
  readonly sources: readonly string[];
  /** An account of its own; a dynamic one where there is none. System units only. */
  readonly account: string | undefined;
  readonly supplementaryGroups: readonly string[];
  /** `DeviceAllow=` without its access: `char-video4linux`, `/dev/ttyUSB0`. */
  readonly devices: readonly string[];
  /** Folders and files below a home that it reads: program, images, recordings. */
  readonly readOnlyPaths: readonly string[];
  /** id → file; systemd reads them as root and hands them over. */
  readonly credentials: ReadonlyMap<string, string>;
  /** Holds the enrolment token until the agent is enrolled. */
  readonly environmentPath: string;
  readonly memoryBytesMax: number;
  /** Whether `systemd-notify` is there: then the agent says when it is ready and that it lives. */
  readonly notifies: boolean;
}

/** The first line of every unit that is ours; a file without it is not touched. */
export const UNIT_MARK = "# Written by `fieldloop agent install`; a new install overwrites it.";

const WATCHDOG_SECONDS = 60;
const RESTART_SECONDS = 5;
const START_SECONDS = 180;
const STOP_SECONDS = 30;
const TASKS_MAX = 256;
const FILES_MAX = 8192;

export function unitName(name: string): string {
  return `fieldloop-agent-${name}.service`;
}

/** Of `StateDirectory=`, below /var/lib or the user's own. */
export function stateFolderName(name: string): string {
  return `fieldloop/${name}`;
}

/** The text of the unit file (systemd.unit(5), systemd.service(5), systemd.exec(5)). */
export function unitText(plan: UnitPlan): string {
  const sections = [
    [UNIT_MARK],
    [
      "[Unit]",
      `Description=Fieldloop device agent ${plan.name}`,
      ...(plan.scope === "system" ? ["Wants=network-online.target", "After=network-online.target"] : []),
      // A device that nobody can reach goes on trying; how often is bounded by RestartSec.
      "StartLimitIntervalSec=0",
    ],
    ["[Service]", ...serviceLines(plan)],
    ["# Sandbox", ...sandboxLines(plan)],
    ["[Install]", `WantedBy=${plan.scope === "system" ? "multi-user.target" : "default.target"}`],
  ];
  return `${sections.map((lines) => lines.join("\n")).join("\n\n")}\n`;
}

function serviceLines(plan: UnitPlan): string[] {
  const { command, sources, environmentPath, notifies, scope } = plan;
  const words = [...command, ...sources.flatMap((source) => ["--source", source])];
  return [
    ...(notifies
      ? [
          "Type=notify",
          // The message comes from systemd-notify, a child of the agent.
          "NotifyAccess=all",
          `WatchdogSec=${WATCHDOG_SECONDS}`,
        ]
      : ["Type=exec"]),
    // The folder is a variable of systemd's own, told to the service: it is the same for every scope.
    `ExecStart=${words.map(quoteWord).join(" ")} --state \${STATE_DIRECTORY}`,
    `EnvironmentFile=-${quotePath(environmentPath)}`,
    // Ready means enrolled: the token has done its work.
    ...(notifies
      ? [`ExecStartPost=-${scope === "system" ? "+" : ""}/bin/rm -f ${quoteWord(environmentPath)}`]
      : []),
    ...[...plan.credentials].map(([id, path]) => `LoadCredential=${id}:${quotePath(path)}`),
    `StateDirectory=${stateFolderName(plan.name)}`,
    "StateDirectoryMode=0700",
    "UMask=0077",
    // glibc gives memory back at once.
    "Environment=MALLOC_TRIM_THRESHOLD_=65536",
    // One heap of malloc for all threads: nothing in control is in a hurry.
    "Environment=MALLOC_ARENA_MAX=1",
    "Restart=always",
    `RestartSec=${RESTART_SECONDS}`,
    // 2: the call itself is wrong, and would be wrong again.
    "RestartPreventExitStatus=2",
    `TimeoutStartSec=${START_SECONDS}`,
    `TimeoutStopSec=${STOP_SECONDS}`,
    // The agent stops its host itself, in order; what is left then is killed.
    "KillMode=mixed",
    `MemoryMax=${plan.memoryBytesMax}`,
    // A host that takes too much is killed alone: the agent starts another.
    "OOMPolicy=continue",
    `TasksMax=${TASKS_MAX}`,
    `LimitNOFILE=${FILES_MAX}`,
    "LimitCORE=0",
  ];
}

/** What a service manager of a user can enforce without namespaces, and what only the system's can. */
function sandboxLines(plan: UnitPlan): string[] {
  return [
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictNamespaces=yes",
    // Netlink: names of hosts and addresses of this one.
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "SystemCallArchitectures=native",
    // Threads of the runtime choose their cores and their niceness: @resources stays.
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @keyring userfaultfd",
    // Refused, not killed: V8 and native libraries try calls that they can do without.
    "SystemCallErrorNumber=EPERM",
    ...(plan.scope === "system" ? systemSandboxLines(plan) : []),
  ];
}

function systemSandboxLines(plan: UnitPlan): string[] {
  const { account, devices, supplementaryGroups, readOnlyPaths } = plan;
  return [
    ...(account === undefined ? ["DynamicUser=yes"] : [`User=${account}`]),
    ...(supplementaryGroups.length > 0 ? [`SupplementaryGroups=${supplementaryGroups.join(" ")}`] : []),
    "ProtectSystem=strict",
    // An empty home, with what the agent reads in it.
    ...(readOnlyPaths.length > 0
      ? [
          "ProtectHome=tmpfs",
          `BindReadOnlyPaths=${readOnlyPaths.map((path) => quoteWord(`-${path}`)).join(" ")}`,
        ]
      : ["ProtectHome=yes"]),
    `ReadWritePaths=-/var/lib/${stateFolderName(plan.name)}`,
    "PrivateTmp=yes",
    "PrivateMounts=yes",
    ...(devices.length > 0
      ? ["DevicePolicy=closed", ...devices.map((device) => `DeviceAllow=${device} rw`)]
      : ["PrivateDevices=yes", "DevicePolicy=closed", "PrivateUsers=yes"]),
    "PrivateIPC=yes",
    "RemoveIPC=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectControlGroups=yes",
    "ProtectProc=invisible",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
  ];
}

/**
 * One word of `ExecStart=` (systemd.service(5), "Command lines"): quoted, with `%` and `$` doubled so that nothing is put in their
 * place but the folder of credentials.
 */
export function quoteWord(word: string): string {
  const doubled = word
    .replaceAll("%", "%%")
    .replaceAll("$", "$$$$")
    .replaceAll("\\", "\\\\")
    .replaceAll('"', '\\"')
    .replaceAll(CREDENTIALS_MARK, "%d");
  return /^[\w@%+=:,./?&-]+$/.test(doubled) ? doubled : `"${doubled}"`;
}

/** Stands for systemd's folder of credentials in a source; no person can write it. */
export const CREDENTIALS_MARK = "\u0001";

/** A path as a setting's value: only specifiers have a meaning there. */
function quotePath(path: string): string {
  return path.replaceAll("%", "%%");
}
