import {
  FieldloopError,
  signaturesFileSchema,
  type ChangeKeysRequest,
  type SigningRequest,
  type TrustOutcome,
  type TrustRole,
  type TrustRoleView,
  type TrustView,
} from "@fieldloop/protocol";
import { describeRequest, readTrustKey } from "@fieldloop/fleet-server/keys";
import { EXIT, note, printJson, printTable } from "../output.js";
import { fleetClient, timeText, type FleetOptions } from "./fleet-options.js";
import { readForm, readText, writeNew } from "./keys-files.js";

export interface ChangeOptions extends FleetOptions {
  key?: string[];
  threshold?: number;
}

export async function status(options: FleetOptions): Promise<void> {
  const view = await fleetClient(options).get<TrustView>("/api/v1/trust");
  if (options.json) return printJson(view);
  showView(view);
}

/** Without key files the server makes a key of its own; with an empty list none is added. */
export async function add(role: TrustRole, options: ChangeOptions): Promise<void> {
  await change({ role, ...(await wantedKeys(options)), ...thresholdOf(options) }, options);
}

export async function rotate(role: TrustRole, options: ChangeOptions): Promise<void> {
  await change({ role, revokeAll: true, ...(await wantedKeys(options)), ...thresholdOf(options) }, options);
}

export async function revoke(role: TrustRole, prefixes: string[], options: ChangeOptions): Promise<void> {
  const view = await fleetClient(options).get<TrustView>("/api/v1/trust");
  const keys = view.roles.find((candidate) => candidate.role === role)!.keys;
  const ids = prefixes.map((prefix) => wholeId(role, prefix, keys));
  await change({ role, revoke: ids, ...thresholdOf(options) }, options);
}

export async function rotateDirector(options: ChangeOptions): Promise<void> {
  if (options.key !== undefined || options.threshold !== undefined) {
    throw new FieldloopError(
      "invalid_argument",
      "Rotate director: its key is made on the server, which signs desired states with it; say neither --key nor --threshold",
    );
  }
  show(await fleetClient(options).post<TrustOutcome>("/api/v1/trust/director"), options);
}

export async function renew(roles: TrustRole[], options: ChangeOptions): Promise<void> {
  const wanted = roles.length > 0 ? roles : (["root", "targets", "snapshot", "timestamp"] as const);
  show(await fleetClient(options).post<TrustOutcome>("/api/v1/trust/renewals", { roles: wanted }), options);
}

export interface RequestOptions extends FleetOptions {
  out?: string;
  replace?: boolean;
  renew?: ("root" | "targets")[];
  only?: "root" | "targets";
  withdraw?: boolean;
}

export async function request(options: RequestOptions): Promise<void> {
  const client = fleetClient(options);
  if (options.withdraw) {
    return show(await client.delete<TrustOutcome>("/api/v1/trust/requests/open"), options);
  }
  const { replace = false, renew: roles = [], only } = options;
  const made = await client.post<SigningRequest>("/api/v1/trust/requests", {
    replace,
    renew: roles,
    ...(only ? { only } : {}),
  });
  if (options.out !== undefined) await writeNew(options.out, `${JSON.stringify(made, null, 2)}\n`);
  if (options.json) return printJson(made);
  if (options.out === undefined) process.stdout.write(`${JSON.stringify(made, null, 2)}\n`);
  for (const line of describeRequest(made)) note(line);
  for (const { role, needs } of made.documents) {
    for (const { of, keyIds, threshold, signedBy } of needs) {
      const left = threshold - signedBy.length;
      if (left <= 0) continue;
      const others = keyIds.filter((keyId) => !signedBy.includes(keyId)).map(shortId);
      note(`${role} wants ${left} more of the keys of ${of}: ${others.join(", ")}`);
    }
  }
  if (options.out !== undefined)
    note(`at the keys: fieldloop keys sign ${options.out} --key FILE --out FILE`);
}

export async function importFile(path: string, options: FleetOptions): Promise<void> {
  const file = await readForm(path, signaturesFileSchema, "signatures");
  show(await fleetClient(options).post<TrustOutcome>("/api/v1/trust/signatures", file), options);
}

async function change(input: ChangeKeysRequest, options: FleetOptions): Promise<void> {
  show(await fleetClient(options).post<TrustOutcome>("/api/v1/trust/keys", input), options);
}

async function wantedKeys({ key }: ChangeOptions): Promise<Pick<ChangeKeysRequest, "add" | "create">> {
  if (key === undefined) return { create: 1 };
  const texts = await Promise.all(
    key.map(async (path) => readTrustKey(await readText(path, "public key"), path)),
  );
  return { add: texts };
}

function thresholdOf({ threshold }: ChangeOptions): Pick<ChangeKeysRequest, "threshold"> {
  return threshold === undefined ? {} : { threshold };
}

function wholeId(role: TrustRole, prefix: string, keys: TrustRoleView["keys"]): string {
  const found = keys.filter(({ keyId }) => keyId.startsWith(prefix.toLowerCase()));
  if (found.length === 1 && prefix.length >= 8) return found[0]!.keyId;
  throw new FieldloopError(
    "invalid_argument",
    `Revoke key of "${role}": "${prefix}" fits ${found.length} of its keys; wanted at least 8 digits of one of ${keys.map(({ keyId }) => shortId(keyId)).join(", ")}`,
  );
}

function show(outcome: TrustOutcome, options: FleetOptions): void {
  if (options.json) return printJson(outcome);
  note(outcome.detail);
  for (const line of outcome.view.staged) note(`waits: ${line}`);
  for (const { role, of, have, threshold } of outcome.view.request?.missing ?? []) {
    note(`waits: ${role} has ${have} of ${threshold} signatures by ${of}`);
  }
}

function showView(view: TrustView): void {
  printTable([
    ["ROLE", "VERSION", "EXPIRES", "SIGNED BY", "KEYS (* on the server)"],
    ...view.roles.map((role) => [
      role.role,
      String(role.version),
      timeText(role.expires),
      `${role.threshold} of ${role.keys.length}`,
      role.keys.map(({ keyId, here }) => `${shortId(keyId)}${here ? "*" : ""}`).join(" "),
    ]),
  ]);
  const { director, request: open } = view;
  note(
    `director ${director.keyId}${director.next === null ? "" : `, next ${director.next} waits for the targets keys`}`,
  );
  for (const line of view.staged) note(`waits for the root keys: ${line}`);
  for (const { model, version } of view.awaiting) note(`waits for the targets keys: ${model}@${version}`);
  if (open) note(`open request ${open.request} of ${timeText(open.created)}`);
  for (const { role, of, have, threshold } of open?.missing ?? []) {
    note(`  ${role} has ${have} of ${threshold} signatures by ${of}`);
  }
  for (const { code, title } of view.warnings) note(`${code}: ${title}`);
  if (view.warnings.some(({ code }) => code === "trust_metadata_expired")) process.exitCode = EXIT.failed;
}

function shortId(keyId: string): string {
  return keyId.slice(0, 12);
}
