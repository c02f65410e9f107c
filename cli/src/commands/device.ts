import { FieldloopError, type DeviceDetail, type DeviceSummary, type LaneState } from "@fieldloop/protocol";
import { InvalidArgumentError, type Command } from "commander";
import { FleetClient, resolveServer, withServerOptions, type ServerOptions } from "../client.js";
import { action, note, printJson, printTable } from "../output.js";
import { tagText } from "./fleet-options.js";

interface DeviceOptions extends ServerOptions {
  json?: boolean;
}

export function registerDeviceCommand(program: Command): void {
  const device = program.command("device").description("List, enrol, tag and suspend devices");
  shared(device.command("list").description("Every device: health, what it runs, how it fares")).action(
    action(list),
  );
  shared(device.command("show <device>").description("One device in full")).action(action(show));
  shared(
    device
      .command("enroll-token")
      .description("Make a token with which a device enrols")
      .option("--ttl <seconds>", "how long it can be used", readCount, 900)
      .option("--uses <count>", "how many devices it enrols", readCount, 1),
  ).action(action(enrolToken));
  shared(device.command("tag <device> <tags...>").description("Replace its tags: key=value …")).action(
    action(tag),
  );
  shared(device.command("suspend <device>").description("Disconnect it and keep it out")).action(
    action((id: string, options: DeviceOptions) => setSuspended(id, true, options)),
  );
  shared(device.command("resume <device>").description("Let a suspended device in again")).action(
    action((id: string, options: DeviceOptions) => setSuspended(id, false, options)),
  );
  shared(
    device
      .command("return <device>")
      .description("Have it return to the version before, at once; its deployment ends rolled back")
      .option("--lane <name>", "which of its lanes", "main"),
  ).action(action(returnPrevious));
}

function shared(command: Command): Command {
  return withServerOptions(command).option("--json", "one JSON document on standard output");
}

async function list(options: DeviceOptions): Promise<void> {
  const devices: DeviceSummary[] = [];
  for await (const device of client(options).list<DeviceSummary>("/api/v1/devices?limit=500"))
    devices.push(device);
  if (options.json) return printJson(devices);
  printTable([
    ["DEVICE", "HEALTH", "RUNNING", "WANTED", "PER SECOND", "CONFIDENCE", "ACCURACY", "TAGS"],
    ...devices.map(row),
  ]);
}

function row(device: DeviceSummary): string[] {
  return [
    device.device,
    device.suspended ? "suspended" : device.health,
    runningText(device),
    version(device.wanted),
    device.predictionsPerSecond.toFixed(1),
    share(device.meanConfidence),
    device.accuracy.count === 0 ? "–" : `${share(device.accuracy.value)} of ${device.accuracy.count}`,
    tagText(device.tags),
  ];
}

/** Every lane's version, where there are several. */
function runningText({ running, lanes }: DeviceSummary): string {
  return lanes.length < 2 ? version(running) : lanes.map((lane) => version(lane.running)).join(" ");
}

async function show(id: string, options: DeviceOptions): Promise<void> {
  const device = await client(options).get<DeviceDetail>(`/api/v1/devices/${encodeURIComponent(id)}`);
  if (options.json) return printJson(device);
  printTable([
    ["DEVICE", device.device],
    ["health", device.suspended ? "suspended" : device.health],
    ["last seen", device.lastSeen === null ? "never" : new Date(device.lastSeen).toISOString()],
    ["running", runningText(device)],
    ["wanted", `${version(device.wanted)} (revision ${device.desiredRevision})`],
    ["predictions", `${device.predictionsTotal}, ${device.predictionsPerSecond.toFixed(1)} a second`],
    ["mean confidence", share(device.meanConfidence)],
    [
      "accuracy",
      device.accuracy.count === 0
        ? "no feedback yet"
        : `${share(device.accuracy.value)} of ${device.accuracy.count} with feedback`,
    ],
    ["tags", tagText(device.tags)],
    ...laneRows(device.state?.lanes ?? []),
    ...device.warnings.map((warning) => [`warning ${warning.code}`, warning.message]),
    ...device.deployments.map((deployment) => [
      `deployment ${new Date(deployment.updated).toISOString()}`,
      `${version(deployment)} ${deployment.state}${deployment.errorCode === null ? "" : ` ${deployment.errorCode}: ${deployment.errorMessage ?? ""}`}`,
    ]),
  ]);
}

/** With one lane the rows above say it all. */
function laneRows(lanes: readonly LaneState[]): string[][] {
  if (lanes.length < 2) return [];
  return lanes.map((lane) => {
    const { running } = lane;
    const runs = running
      ? `${version(running)} (${running.variant} on ${running.executionProvider})`
      : `nothing${lane.model === null ? "" : `, wants ${lane.model}`}`;
    const slowed = lane.rateMax === null ? "" : `, held to ${lane.rateMax} a second`;
    const frames = `${lane.framesSeen} frames, ${lane.framesDropped} dropped, ${lane.framesSkipped} skipped, ${lane.framesFailed} failed`;
    return [`lane ${lane.name}`, `${lane.source}: ${runs}, priority ${lane.priority}${slowed}; ${frames}`];
  });
}

async function enrolToken(options: DeviceOptions & { ttl: number; uses: number }): Promise<void> {
  const api = client(options);
  const body = { ttlSeconds: options.ttl, uses: options.uses };
  const made = await api.post<{ token: string; expires: number; uses: number }>(
    "/api/v1/enrolment-tokens",
    body,
  );
  if (options.json) return printJson(made);
  process.stdout.write(`${made.token}\n`);
  note(
    `enrols ${made.uses === 1 ? "one device" : `${made.uses} devices`} until ${new Date(made.expires).toISOString()}: fieldloop agent --server ${api.url} --enroll ${made.token}`,
  );
}

async function tag(id: string, tags: string[], options: DeviceOptions): Promise<void> {
  const body = Object.fromEntries(tags.map(readTag));
  const path = `/api/v1/devices/${encodeURIComponent(id)}/tags`;
  await report(await client(options).put<DeviceSummary>(path, body), options);
}

async function setSuspended(id: string, suspended: boolean, options: DeviceOptions): Promise<void> {
  const path = `/api/v1/devices/${encodeURIComponent(id)}/suspension`;
  await report(await client(options).put<DeviceSummary>(path, { suspended }), options);
}

async function returnPrevious(id: string, options: DeviceOptions & { lane: string }): Promise<void> {
  const path = `/api/v1/devices/${encodeURIComponent(id)}/commands`;
  const body = { kind: "return_previous", lane: options.lane };
  const sent = await client(options).post<{ command: string }>(path, body);
  if (options.json) return printJson(sent);
  note(`${id}: asked to return to the version before (${sent.command}); its answer is among its events`);
}

async function report(device: DeviceSummary, options: DeviceOptions): Promise<void> {
  if (options.json) return printJson(device);
  note(`${device.device}: ${device.suspended ? "suspended" : device.health}, tags ${tagText(device.tags)}`);
}

function client(options: ServerOptions): FleetClient {
  return new FleetClient(resolveServer(options));
}

function version(of: { model: string; version: number } | null): string {
  return of === null ? "–" : `${of.model}@${of.version}`;
}

function share(value: number | null): string {
  return value === null ? "–" : `${(value * 100).toFixed(1)} %`;
}

function readTag(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at < 1) throw new FieldloopError("invalid_argument", `Read tag: "${text}" is not key=value`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function readCount(text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1) throw new InvalidArgumentError(`"${text}" is no count above 0`);
  return count;
}
