import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import type { InstallPlan, ServicePlace, ServiceStatus } from "@fieldloop/device-agent";
import { type Command, InvalidArgumentError } from "commander";
import { action, note, printJson, printTable } from "../output.js";

interface PlaceFlags {
  readonly name: string;
  readonly user?: boolean;
  readonly root?: string;
  readonly json?: boolean;
}

interface InstallFlags extends PlaceFlags {
  readonly source: readonly string[];
  readonly server?: string;
  readonly enroll?: string;
  readonly runAs?: string;
  readonly accelerator: boolean;
  readonly device: readonly string[];
  readonly read: readonly string[];
  readonly memoryMaxMb: number;
  readonly start: boolean;
  readonly dryRun?: boolean;
}

const MEGABYTE = 1024 * 1024;

const EXAMPLES = `
Examples:
  $ sudo fieldloop agent install --name press-3 --server https://fleet.example --enroll fle_… --source camera:/dev/video0
  $ fieldloop agent install --user --name desk --source http:8090 --dry-run -- --tag site=lyon --threads 2
  $ sudo fieldloop agent install --name press-3 --source 'rtsp:rtsp://cam/live?login=/etc/fieldloop/cam.login'
  $ journalctl -u fieldloop-agent-press-3 -f
  $ sudo fieldloop agent uninstall --name press-3            # identity and data stay; --purge removes them`;

/** `agent install | uninstall | status`: the agent as a service of systemd, beside `agent` itself. */
export function registerAgentService(agent: Command): void {
  // What stands behind a subcommand's name is the subcommand's, though `agent` has options of the same names.
  agent.parent?.enablePositionalOptions();
  agent.enablePositionalOptions();
  placeOptions(agent.command("install"))
    .description("Write a sandboxed systemd unit for the agent, enable and start it")
    .argument("[options...]", "further options of the agent, after --")
    .requiredOption("--source <spec>", "as for the agent; may be repeated", gather)
    .option("--server <url>", "fleet server (first start)")
    .option("--enroll <token>", "one-time enrolment token; kept in a file of its own until it is used")
    .option("--run-as <account>", "an account of its own instead of a dynamic one")
    .option("--accelerator", "let it use the GPU or NPU of the device", false)
    .option("--device <node>", "a further device it may use, /dev/… or char-…; may be repeated", gather, [])
    .option("--read <path>", "a further path below a home that it reads; may be repeated", gather, [])
    .option("--memory-max-mb <n>", "memory of all its processes together", readMegabytes, 2048)
    .option("--no-start", "enable it, but do not start it now")
    .option("--dry-run", "print the unit and change nothing")
    .addHelpText("after", EXAMPLES)
    .action(action(install));
  placeOptions(agent.command("uninstall"))
    .description("Stop and remove the agent's systemd unit; what it kept stays")
    .option("--purge", "remove what it kept as well: identity, models, predictions that were not sent", false)
    .action(action(uninstall));
  placeOptions(agent.command("status"))
    .description("Say whether the agent's systemd unit is there, and how it runs")
    .action(action(status));
}

function placeOptions(command: Command): Command {
  return command
    .requiredOption("--name <id>", "device id")
    .option("--user", "a unit of this user's own service manager")
    .option("--root <folder>", "an image of a system instead of the running one")
    .option("--json", "result as JSON");
}

async function install(agentOptions: readonly string[], flags: InstallFlags): Promise<void> {
  const { inspectMachine, installService, planInstall, unitText } = await import("@fieldloop/device-agent");
  const program = [process.execPath, realpathSync(process.argv[1]!)];
  const plan = planInstall(
    {
      ...placeOf(flags),
      sources: flags.source,
      server: flags.server,
      // As for the agent: the environment shows it to fewer than a command line does.
      token: flags.enroll ?? process.env.FIELDLOOP_ENROLL,
      agentArguments: [...agentOptions, "--json"],
      account: flags.runAs,
      accelerator: flags.accelerator,
      devices: flags.device,
      readOnlyPaths: flags.read.map((path) => resolve(path)),
      memoryBytesMax: flags.memoryMaxMb * MEGABYTE,
    },
    await inspectMachine(program, process.env.PATH ?? ""),
  );
  if (flags.dryRun === true) {
    dryRun(plan, unitText(plan.unit), flags.json === true);
    return;
  }
  const report = await installService(plan, { start: flags.start });
  if (flags.json === true) {
    printJson(report);
    return;
  }
  for (const text of report.notes) note(`note: ${text}`);
  const done = [report.changed ? "written" : "unchanged", report.enabled ? "enabled" : "not enabled"];
  note(
    `${report.unit}: ${[...done, report.started ? "started" : "not started"].join(", ")} (${report.unitPath})`,
  );
}

function dryRun(plan: InstallPlan, unit: string, json: boolean): void {
  const { unitPath, environmentPath, notes } = plan;
  if (json) printJson({ unitPath, environmentPath, unit, notes });
  else {
    for (const text of notes) note(`note: ${text}`);
    note(`would be written to ${unitPath}`);
    process.stdout.write(unit);
  }
}

async function uninstall(flags: PlaceFlags & { readonly purge: boolean }): Promise<void> {
  const { uninstallService } = await import("@fieldloop/device-agent");
  const report = await uninstallService(placeOf(flags), { purge: flags.purge });
  if (flags.json === true) printJson(report);
  else {
    const kept = report.stateRemoved ? "its state is removed" : `its state stays in ${report.statePath}`;
    note(
      `${report.unit}: ${report.removed ? "removed" : "was not installed"}; ${flags.purge ? "its state is removed" : kept}`,
    );
  }
}

async function status(flags: PlaceFlags): Promise<void> {
  const { serviceStatus } = await import("@fieldloop/device-agent");
  const report = await serviceStatus(placeOf(flags));
  if (flags.json === true) printJson(report);
  else printStatus(report);
  if (!report.installed || report.active === "failed") process.exitCode = 1;
}

function printStatus(report: ServiceStatus): void {
  const { active, sub, pid, restarts, memoryBytes, since } = report;
  printTable([
    ["unit", report.unit],
    ["file", report.installed ? report.unitPath : "not installed"],
    ["state", active === undefined ? "not known: systemd does not run here" : `${active} (${sub ?? ""})`],
    ...(since ? [["since", since]] : []),
    ...(pid === undefined || pid === 0 ? [] : [["process", String(pid)]]),
    ...(restarts === undefined ? [] : [["restarts", String(restarts)]]),
    ...(memoryBytes === undefined ? [] : [["memory", `${Math.round(memoryBytes / MEGABYTE)} MB`]]),
    ["enrolment token", report.tokenWaits ? "waits to be used" : "none"],
  ]);
}

function placeOf(flags: PlaceFlags): ServicePlace {
  return { name: flags.name, scope: flags.user === true ? "user" : "system", root: flags.root };
}

function gather(text: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), text];
}

function readMegabytes(text: string): number {
  const count = Number(text);
  if (!/^\d{2,6}$/.test(text) || count < 64) throw new InvalidArgumentError("wanted megabytes from 64");
  return count;
}
