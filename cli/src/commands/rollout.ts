import {
  FieldloopError,
  isFinal,
  ROLLOUT,
  type RolloutDeviceView,
  type RolloutView,
} from "@fieldloop/protocol";
import { InvalidArgumentError, type Command } from "commander";
import { action, EXIT, note, printJson, printTable } from "../output.js";
import {
  fleetClient,
  proportionText,
  queryOf,
  readCount,
  readList,
  readModelVersion,
  readNumber,
  takeItems,
  timeText,
  watchUntil,
  withFleetOptions,
  type FleetOptions,
} from "./fleet-options.js";

/** Devices that `show` lists. */
const DEVICES_SHOWN_MAX = 500;

interface CreateOptions extends FleetOptions {
  devices?: string[];
  group?: string;
  waves?: Wave[];
  onFailure?: string;
  soak?: number;
  silence?: number;
  timeout?: number;
  predictions?: number;
  accuracyDrop?: number;
  probation?: number;
  force?: string;
  draft?: boolean;
  watch?: boolean;
}

type Wave = { percent: number } | { count: number } | { devices: string[] };

export function registerRolloutCommand(program: Command): void {
  const rollout = program
    .command("rollout")
    .description("Roll a version out in waves, watch its gates, stop it or take it back");
  withFleetOptions(
    rollout
      .command("create <version>")
      .description("Roll MODEL@VERSION out to devices or to a group")
      .option("--devices <ids>", "devices, separated by commas", readList)
      .option("--group <name>", "a group of devices; `all` is every device")
      .option("--waves <list>", "e.g. 1,10%,100% or cam-a+cam-b,100%", readWaves)
      .option("--on-failure <action>", "pause, abort or roll_back", readOnFailure)
      .option("--soak <seconds>", "how long a complete wave is watched", readNumber)
      .option("--silence <seconds>", "a device silent for longer has failed", readNumber)
      .option("--timeout <seconds>", "a wave not complete after this long has failed", readNumber)
      .option("--predictions <count>", "predictions wanted from each device before a verdict", readNumber)
      .option("--accuracy-drop <share>", "largest drop of accuracy that passes, 0..1", readNumber)
      .option("--probation <seconds>", "probation on the device", readNumber)
      .option("--force <reason>", "roll out without a passing evaluation, and why: 10 letters or more")
      .option("--draft", "plan it, do not start it")
      .option("--watch", "stay until it ends"),
  ).action(action(create));
  withFleetOptions(
    rollout
      .command("list")
      .description("Rollouts, newest first")
      .option("--model <name>", "of one model")
      .option("--limit <count>", "at most", readCount, 20),
  ).action(action(list));
  withFleetOptions(
    rollout.command("show <rollout>").description("Waves, devices, gates and their numbers"),
  ).action(action(show));
  withFleetOptions(
    rollout
      .command("watch <rollout>")
      .description("Follow it until it ends; exit code 0 only if it succeeded"),
  ).action(action(watch));
  for (const [name, verb, description] of [
    ["start", "start", "Start a planned rollout"],
    ["pause", "pause", "Offer nothing more until it is resumed"],
    ["resume", "resume", "Go on with a paused rollout"],
    ["abort", "abort", "End it; updated devices keep the version"],
    ["roll-back", "roll_back", "Give every updated device the version back that it ran before"],
  ] as const) {
    withFleetOptions(
      rollout
        .command(`${name} <rollout>`)
        .description(description)
        .option("--reason <text>", "for the audit log", ""),
    ).action(action((id: string, options: FleetOptions & { reason: string }) => act(id, verb, options)));
  }
}

async function create(version: string, options: CreateOptions): Promise<void> {
  const client = fleetClient(options);
  const created = await client.post<RolloutView>("/api/v1/rollouts", requestOf(version, options));
  if (options.watch) return watch(created.rollout, options);
  if (options.json) return printJson(created);
  note(`${created.rollout}: ${created.state}`);
}

function requestOf(version: string, options: CreateOptions): Record<string, unknown> {
  if ((options.devices === undefined) === (options.group === undefined)) {
    throw new FieldloopError("invalid_argument", "Create rollout: give either --devices or --group");
  }
  const gate = {
    soakSeconds: options.soak,
    silenceSeconds: options.silence,
    waveTimeoutSeconds: options.timeout,
    predictionsMin: options.predictions,
    accuracyDropMax: options.accuracyDrop,
  };
  return {
    change: { kind: "package", ...readModelVersion(version) },
    target: options.devices ? { devices: options.devices } : { group: options.group },
    waves: options.waves,
    gate,
    onFailure: options.onFailure,
    probation: options.probation === undefined ? undefined : { seconds: options.probation, predictions: 0 },
    forceReason: options.force,
    start: !options.draft,
  };
}

async function list(options: FleetOptions & { model?: string; limit: number }): Promise<void> {
  const path = `/api/v1/rollouts${queryOf({ model: options.model })}`;
  const rollouts = await takeItems(fleetClient(options).list<RolloutView>(path), options.limit);
  if (options.json) return printJson(rollouts);
  printTable([
    ["ROLLOUT", "VERSION", "STATE", "WAVES", "CREATED", "REASON"],
    ...rollouts.map((one) => [
      one.rollout,
      one.title,
      one.state,
      one.waves.map(({ state }) => state).join(" "),
      timeText(one.created),
      one.reason ?? "",
    ]),
  ]);
}

async function show(id: string, options: FleetOptions): Promise<void> {
  const rollout = await read(id, options);
  if (options.json) return printJson(rollout);
  const devices = await takeItems(
    fleetClient(options).list<RolloutDeviceView>(`/api/v1/rollouts/${encodeURIComponent(id)}/devices`),
    DEVICES_SHOWN_MAX,
  );
  const from = rollout.from?.version ? ` (from @${rollout.from.version})` : "";
  printTable([
    ["ROLLOUT", rollout.rollout],
    ["version", `${rollout.title}${from}`],
    ["state", rollout.reason === null ? rollout.state : `${rollout.state}: ${rollout.reason}`],
    ["accuracy before", proportionText(rollout.accuracy.before)],
    ["accuracy after", proportionText(rollout.accuracy.after)],
    ...rollout.waves.flatMap((wave) => [
      [`wave ${wave.wave}`, `${wave.state}, started ${timeText(wave.started)}`],
      ...devices
        .filter((device) => device.wave === wave.wave)
        .map((device) => [
          `  ${device.device}`,
          [device.state, device.errorCode, device.hold?.detail || device.hold?.reason]
            .filter(Boolean)
            .join(" "),
        ]),
      ...(wave.gate?.tests ?? []).map((test) => [`  gate ${test.test}`, `${test.verdict}: ${test.detail}`]),
    ]),
  ]);
}

async function watch(id: string, options: FleetOptions): Promise<void> {
  const ended = await watchUntil(() => read(id, options), progressText, isOver, note);
  if (options.json) printJson(ended);
  else note(ended.reason === null ? ended.state : `${ended.state}: ${ended.reason}`);
  if (ended.state !== "succeeded") process.exitCode = EXIT.failed;
}

/** A paused rollout waits for a person: watching it longer shows nothing. */
function isOver({ state }: RolloutView): boolean {
  return state === "succeeded" || state === "paused" || state === "aborted" || isFinal(ROLLOUT, state);
}

function progressText({ state, waves }: RolloutView): string {
  const parts = waves.map((wave) => {
    return `wave ${wave.wave} ${wave.state} (${wave.counts.active} of ${wave.counts.total} active)`;
  });
  return `${state}: ${parts.join(", ")}`;
}

async function act(id: string, verb: string, options: FleetOptions & { reason: string }): Promise<void> {
  const path = `/api/v1/rollouts/${encodeURIComponent(id)}/actions`;
  const rollout = await fleetClient(options).post<RolloutView>(path, {
    action: verb,
    reason: options.reason,
  });
  if (options.json) return printJson(rollout);
  note(`${rollout.rollout}: ${rollout.state}`);
}

function read(id: string, options: FleetOptions): Promise<RolloutView> {
  return fleetClient(options).get<RolloutView>(`/api/v1/rollouts/${encodeURIComponent(id)}`);
}

/** `1` is a count, `10%` a cumulative share, anything else devices joined by `+`. */
function readWaves(text: string): Wave[] {
  return readList(text).map((part) => {
    if (/^\d+(?:\.\d+)?%$/.test(part)) return { percent: Number(part.slice(0, -1)) };
    return /^\d+$/.test(part) ? { count: Number(part) } : { devices: part.split("+") };
  });
}

function readOnFailure(text: string): string {
  if (["pause", "abort", "roll_back"].includes(text)) return text;
  throw new InvalidArgumentError(`"${text}" is none of pause, abort, roll_back`);
}
