import {
  FieldloopError,
  ROLLOUT_DEVICE_STATES,
  ROLLOUT_STATES,
  type RolloutDeviceView,
  type RolloutVerdict,
  type RolloutView,
} from "@fieldloop/protocol";
import { Option, type Command } from "commander";
import { action, EXIT, note, printJson, printTable } from "../output.js";
import { withCreateOptions, type CreateOptions } from "../rollout/options.js";
import { checkRequest, readRequest } from "../rollout/request-file.js";
import { requestOf } from "../rollout/request.js";
import { deviceRows, listRows, showRows, verdictRows } from "../rollout/tables.js";
import { watchRollout } from "../rollout/watch.js";
import {
  fleetClient,
  queryOf,
  readCount,
  readList,
  takeItems,
  withFleetOptions,
  type FleetOptions,
} from "./fleet-options.js";

interface ActOptions extends FleetOptions {
  reason?: string;
  wave?: number;
  devices?: string[];
  revert?: boolean;
}

export function registerRolloutCommand(program: Command): void {
  const rollout = program
    .command("rollout")
    .description("Roll a version or a configuration out in waves, watch its gates, stop it or take it back");
  withFleetOptions(
    withCreateOptions(
      rollout
        .command("create [version]")
        .description("Roll MODEL@VERSION (or --config) out to devices, a group or a selection"),
    ),
  ).action(action(create));
  withFleetOptions(
    rollout
      .command("list")
      .description("Rollouts, newest first")
      .option("--model <name>", "of one model")
      .addOption(new Option("--state <state>", "in one state").choices(ROLLOUT_STATES))
      .option("--limit <count>", "at most", readCount, 20),
  ).action(action(list));
  withFleetOptions(
    rollout.command("show <rollout>").description("Waves, counts, the latest gates and their numbers"),
  ).action(action(show));
  withFleetOptions(
    rollout
      .command("devices <rollout>")
      .description("Each device: how far it is, why it waits or failed")
      .addOption(new Option("--state <state>", "in one state").choices(ROLLOUT_DEVICE_STATES))
      .option("--wave <number>", "of one wave", readCount)
      .option("--limit <count>", "at most", readCount, 500),
  ).action(action(devices));
  withFleetOptions(
    rollout
      .command("verdicts <rollout>")
      .description("Every verdict of every gate, with the numbers and intervals that decided")
      .option("--wave <number>", "of one wave", readCount)
      .option("--limit <count>", "at most", readCount, 200),
  ).action(action(verdicts));
  withFleetOptions(
    rollout
      .command("watch <rollout>")
      .description("Draw waves and gates live until it ends; exit code 0 only if it succeeded"),
  ).action(action(watch));
  registerActions(rollout);
}

function registerActions(rollout: Command): void {
  const add = (
    name: string,
    description: string,
    body: (options: ActOptions) => Record<string, unknown>,
  ): Command =>
    withFleetOptions(
      rollout
        .command(`${name} <rollout>`)
        .description(description)
        .option("--reason <text>", "for the audit log"),
    ).action(action((id: string, options: ActOptions) => act(id, body(options), options)));
  add("start", "Start a draft, or a scheduled rollout before its time", () => ({ action: "start" }));
  add("approve", "Approve the rollout as a second person, or let a wave begin", ({ wave }) => ({
    action: "approve",
    wave,
  })).option("--wave <number>", "the wave that may begin", readCount);
  add("pause", "Offer nothing more until it is resumed", () => ({ action: "pause" }));
  add("resume", "Go on with a paused rollout", () => ({ action: "resume" }));
  add("abort", "End it; updated devices keep the version, unfinished offers are withdrawn", ({ revert }) => ({
    action: "abort",
    devices: revert ? "revert" : "keep",
  })).option("--revert", "updated devices go back to what they had");
  add("roll-back", "Give every updated device back what it had before; also after success", () => ({
    action: "roll_back",
  }));
  add("retry", "Ask failed and silent devices again", ({ devices: named }) => ({
    action: "retry",
    devices: named,
  })).option("--devices <ids>", "only these, separated by commas", readList);
  add("next-wave", "Let the open wave pass by hand, whatever its gate says; wants a --reason", () => ({
    action: "next_wave",
  }));
}

async function create(version: string | undefined, options: CreateOptions): Promise<void> {
  const from = options.from === undefined ? {} : await readRequest(options.from);
  const request = requestOf(version, options, from);
  const checked = checkRequest(request);
  if (options.print) return printJson(checked);
  const created = await fleetClient(options).post<RolloutView>("/api/v1/rollouts", request);
  if (options.watch) return watch(created.rollout, options);
  if (options.json) return printJson(created);
  note(
    `${created.rollout}: ${created.state}${created.waitsFor === null ? "" : `, waits for ${created.waitsFor}`}`,
  );
}

interface ListOptions extends FleetOptions {
  model?: string;
  state?: string;
  limit: number;
}

async function list(options: ListOptions): Promise<void> {
  const path = `/api/v1/rollouts${queryOf({ model: options.model, state: options.state })}`;
  const rollouts = await takeItems(fleetClient(options).list<RolloutView>(path), options.limit);
  if (options.json) return printJson(rollouts);
  printTable(listRows(rollouts));
}

async function show(id: string, options: FleetOptions): Promise<void> {
  const rollout = await fleetClient(options).get<RolloutView>(pathOf(id));
  if (options.json) return printJson(rollout);
  printTable(showRows(rollout));
}

interface PageOptions extends FleetOptions {
  state?: string;
  wave?: number;
  limit: number;
}

async function devices(id: string, options: PageOptions): Promise<void> {
  const path = `${pathOf(id)}/devices${queryOf({ state: options.state, wave: options.wave })}`;
  const items = await takeItems(fleetClient(options).list<RolloutDeviceView>(path), options.limit);
  if (options.json) return printJson(items);
  printTable(deviceRows(items));
}

async function verdicts(id: string, options: PageOptions): Promise<void> {
  const path = `${pathOf(id)}/verdicts${queryOf({ wave: options.wave })}`;
  const items = await takeItems(fleetClient(options).list<RolloutVerdict>(path), options.limit);
  if (options.json) return printJson(items);
  printTable(verdictRows(items));
}

async function watch(id: string, options: FleetOptions): Promise<void> {
  const ended = await watchRollout(fleetClient(options), id);
  if (options.json) printJson(ended);
  else note(ended.reason === null ? ended.state : `${ended.state}: ${ended.reason}`);
  if (ended.state !== "succeeded") process.exitCode = EXIT.failed;
}

async function act(id: string, body: Record<string, unknown>, options: ActOptions): Promise<void> {
  if (body["action"] === "next_wave" && (options.reason ?? "").length < 10) {
    throw new FieldloopError(
      "invalid_argument",
      "Let a wave pass by hand: say why, with --reason and 10 letters or more",
    );
  }
  const rollout = await fleetClient(options).post<RolloutView>(`${pathOf(id)}/actions`, {
    ...body,
    reason: options.reason,
  });
  if (options.json) return printJson(rollout);
  note(`${rollout.rollout}: ${rollout.state}`);
}

function pathOf(id: string): string {
  return `/api/v1/rollouts/${encodeURIComponent(id)}`;
}
