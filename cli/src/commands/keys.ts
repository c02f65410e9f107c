import { FieldloopError, TRUST_ROLES, type TrustRole } from "@fieldloop/protocol";
import { InvalidArgumentError, type Command } from "commander";
import { action } from "../output.js";
import { readCount, withFleetOptions } from "./fleet-options.js";
import { exportMetadata } from "./keys-export.js";
import { initKey, signFile } from "./keys-offline.js";
import * as online from "./keys-online.js";

/** `fieldloop keys`: who may decide what devices install. `init` and `sign` need no server and no network. */
export function registerKeysCommand(program: Command): void {
  const keys = program
    .command("keys")
    .description("Signing keys of the fleet: create, move offline, rotate, revoke, sign, renew");
  registerOffline(keys);
  registerChanges(keys);
  registerRequests(keys);
}

function registerOffline(keys: Command): void {
  keys
    .command("init")
    .description("Make a key on this machine; the server gets its public half only")
    .requiredOption("--out <file>", "private key; FILE.pub.json is the public half")
    .option(
      "--passphrase-file <file>",
      "first line of a file (default: FIELDLOOP_KEY_PASSPHRASE, or asked for)",
    )
    .option("--plain", "without a passphrase")
    .option("--public-key <file>", "for a key in an HSM or KMS: its public half as PEM")
    .option(
      "--sign-command <words...>",
      "… and the program that signs: bytes on standard input, signature on standard output",
    )
    .option("--encoding <name>", "… how it writes the signature: raw, hex or base64", "raw")
    .option("--json", "one JSON document on standard output")
    .action(action(initKey));
  keys
    .command("sign <request>")
    .description("Show what a signing request would change, and sign it; needs no server")
    .requiredOption("--key <file...>", "private keys")
    .requiredOption("--out <file>", "signatures, to be carried back")
    .option(
      "--passphrase-file <file>",
      "first line of a file (default: FIELDLOOP_KEY_PASSPHRASE, or asked for)",
    )
    .option("--yes", "sign without asking")
    .option("--json", "one JSON document on standard output")
    .action(action(signFile));
}

function registerChanges(keys: Command): void {
  withFleetOptions(
    keys.command("status").description("Roles, thresholds, expiry, and what waits for signatures"),
  ).action(action(online.status));
  withFleetOptions(
    keys
      .command("add <role>")
      .description("Add keys to root, targets, snapshot or timestamp")
      .option("--key <file...>", "public keys: FILE.pub.json or PEM; a new one on the server where absent")
      .option("--threshold <count>", "how many of the role's keys must sign", readCount),
  ).action(action((role: string, options: online.ChangeOptions) => online.add(readRole(role), options)));
  withFleetOptions(
    keys
      .command("rotate <role>")
      .description("Replace all keys of a role, or of the director, who signs desired states")
      .option("--key <file...>", "public keys: FILE.pub.json or PEM; a new one on the server where absent")
      .option("--threshold <count>", "how many of the new keys must sign", readCount),
  ).action(
    action((role: string, options: online.ChangeOptions) =>
      role === DIRECTOR
        ? online.rotateDirector(options)
        : online.rotate(readRole(role, [...TRUST_ROLES, DIRECTOR]), options),
    ),
  );
  withFleetOptions(
    keys
      .command("revoke <role> <key-ids...>")
      .description("Take keys from a role; the first digits of an id are enough")
      .option("--threshold <count>", "how many of the others must sign", readCount),
  ).action(
    action((role: string, keyIds: string[], options: online.ChangeOptions) =>
      online.revoke(readRole(role), keyIds, options),
    ),
  );
  withFleetOptions(
    keys
      .command("threshold")
      .description("How many keys of a role must sign")
      .argument("<role>")
      .argument("<count>", "at least 1", readCount),
  ).action(
    action((role: string, threshold: number, options: online.ChangeOptions) =>
      online.add(readRole(role), { ...options, threshold, key: [] }),
    ),
  );
}

function registerRequests(keys: Command): void {
  withFleetOptions(
    keys
      .command("request")
      .description("Write what waits for signatures into a file for the offline machine")
      .option("--out <file>", "where to")
      .option("--replace", "a new request in place of the open one")
      .option("--renew <role...>", "root or targets, though they are good still", readDocuments)
      .option("--only <role>", "root or targets, where both wait", readDocument)
      .option("--withdraw", "drop the open request and every change of keys that is not in force"),
  ).action(action(online.request));
  withFleetOptions(
    keys.command("import <signatures>").description("Bring back what the offline machine signed"),
  ).action(action(online.importFile));
  withFleetOptions(
    keys
      .command("renew [roles...]")
      .description("Make metadata anew before they expire (the server does so by itself)"),
  ).action(
    action((roles: string[], options: online.ChangeOptions) =>
      online.renew(
        roles.map((role) => readRole(role)),
        options,
      ),
    ),
  );
  withFleetOptions(
    keys
      .command("export")
      .description(
        "Write all roots and the metadata in force into a folder, e.g. for devices that are set up without a network",
      )
      .requiredOption("--out <folder>", "where to"),
  ).action(action(exportMetadata));
}

/** Signs desired states; no role of TUF. */
const DIRECTOR = "director";

function readRole(text: string, named: readonly string[] = TRUST_ROLES): TrustRole {
  const role = TRUST_ROLES.find((candidate) => candidate === text);
  if (role) return role;
  throw new FieldloopError("invalid_argument", `Read role: "${text}" is none of ${named.join(", ")}`);
}

function readDocument(text: string): "root" | "targets" {
  if (text === "root" || text === "targets") return text;
  throw new InvalidArgumentError(`"${text}" is neither root nor targets`);
}

function readDocuments(text: string, before: ("root" | "targets")[] = []): ("root" | "targets")[] {
  return [...before, readDocument(text)];
}
