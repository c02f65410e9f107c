import type { ServerResponse } from "node:http";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { serveRange } from "@fieldloop/device-agent/testing/fleet";
import { makeTufKey } from "@fieldloop/device-agent/testing/tuf-keys";
import { isoTime } from "@fieldloop/device-agent/testing/tuf-repository";
import {
  COMMAND_TYPE,
  createSigningKey,
  DIRECTOR_TARGET,
  encodeMessage,
  manifestFiles,
  packageTargetPath,
  sign,
  UNLIMITED,
  type Desired,
  type ErrorCode,
} from "@fieldloop/protocol";
import { STRANGER } from "../kit/forger.js";
import type { AttackStage } from "./attack-stage.js";

export interface Attack {
  readonly name: string;
  /** How the device says no: the code that the last step of the attack ends with. */
  readonly code: ErrorCode;
  readonly run: (stage: AttackStage) => Promise<void>;
  /** What the owners of the fleet do about it, before the next honest version. */
  readonly mend?: (stage: AttackStage) => void;
}

const METADATA = "/tuf/metadata/";

/** Offers the evil package and waits for the refusal. */
async function refused(stage: AttackStage, code: ErrorCode): Promise<void> {
  await stage.tells("refusal", code, await stage.offer());
}

/** Offers the evil package; the device waits for metadata that it can believe. */
async function waits(stage: AttackStage, code: ErrorCode): Promise<void> {
  await stage.tells("waiting", code, await stage.offer());
}

/** What a desired state would say that a stranger makes. */
async function evilDesired(stage: AttackStage, change: Partial<Desired>): Promise<Desired> {
  return {
    device: "test-1",
    revision: 1_000_000,
    issued: Date.now(),
    assignments: [await stage.fleet.store(stage.evil, "forged")],
    sampling: { bytesPerHour: 0, randomShare: 0, worthMin: 1, worthPerMinute: 0 },
    predictionsIntervalSeconds: 0.2,
    profileIntervalSeconds: 30,
    limits: UNLIMITED,
    configId: null,
    ...change,
  };
}

export const ATTACKS: readonly Attack[] = [
  {
    name: "unsigned",
    code: "trust_signature_insufficient",
    run: async (stage) => {
      stage.vouchForEvil([]);
      await refused(stage, "trust_signature_insufficient");
    },
  },
  {
    name: "wrong key",
    code: "trust_signature_insufficient",
    run: async (stage) => {
      stage.vouchForEvil([makeTufKey()]);
      await refused(stage, "trust_signature_insufficient");
    },
  },
  {
    name: "wrong role",
    code: "trust_signature_insufficient",
    run: async (stage) => {
      const { signers } = stage.tuf;
      stage.vouchForEvil([...signers.get("snapshot")!, ...signers.get("timestamp")!]);
      await refused(stage, "trust_signature_insufficient");
    },
  },
  {
    name: "threshold unmet",
    code: "trust_signature_insufficient",
    run: async (stage) => {
      const { tuf } = stage;
      tuf.addKey("targets");
      tuf.root.roles["targets"]!.threshold = 2;
      tuf.publish("root");
      stage.vouchForEvil(tuf.signers.get("targets")!.slice(0, 1));
      await refused(stage, "trust_signature_insufficient");
    },
  },
  {
    name: "expired",
    code: "trust_metadata_expired",
    run: async (stage) => {
      stage.tuf.timestamp.expires = isoTime(Date.now() - 60_000);
      stage.tuf.publish("timestamp");
      await waits(stage, "trust_metadata_expired");
    },
    mend: ({ tuf }) => void (tuf.timestamp.expires = tuf.expiry),
  },
  {
    name: "frozen: what was good once is shown for ever, and the device's clock is set back",
    code: "trust_clock_back",
    run: async (stage) => {
      await refused(stage, "trust_target_unknown");
      stage.moveClock(40);
      await waits(stage, "trust_metadata_expired");
      stage.moveClock(0);
      await waits(stage, "trust_clock_back");
    },
    mend: (stage) => stage.moveClock(0),
  },
  {
    name: "rolled back",
    code: "trust_rollback_refused",
    run: async (stage) => {
      stage.tuf.timestamp.version--;
      stage.tuf.publishAs("timestamp");
      stage.tuf.timestamp.version++;
      await refused(stage, "trust_rollback_refused");
    },
  },
  {
    name: "mixed: a snapshot of another time beside a new timestamp",
    code: "trust_metadata_mixed",
    run: async (stage) => {
      const { tuf } = stage;
      const old = tuf.file("snapshot");
      tuf.publish("snapshot", "timestamp");
      tuf.files.set(`${tuf.snapshot.version}.snapshot.json`, old);
      await refused(stage, "trust_metadata_mixed");
    },
  },
  {
    name: "fast-forward: the stolen timestamp key counts so far ahead that no honest one counts any more",
    code: "trust_rollback_refused",
    run: async (stage) => {
      const { tuf } = stage;
      const honest = tuf.timestamp.version;
      tuf.timestamp.version = 2_000_000_000;
      tuf.publishAs("timestamp");
      await refused(stage, "trust_target_unknown");
      tuf.timestamp.version = honest;
      tuf.publish("timestamp");
      await refused(stage, "trust_rollback_refused");
    },
    mend: ({ tuf }) => {
      tuf.rotateKeys("timestamp");
      tuf.publish("root");
    },
  },
  {
    name: "endless data",
    code: "trust_metadata_too_large",
    run: async (stage) => {
      stage.fleet.tufTampered.set(`${METADATA}timestamp.json`, (response) =>
        pour(response, Buffer.alloc(8 * 1024, 0x20), 1),
      );
      await refused(stage, "trust_metadata_too_large");
    },
    mend: ({ fleet }) => fleet.tufTampered.clear(),
  },
  {
    name: "slow retrieval",
    code: "download_too_slow",
    run: async (stage) => {
      stage.fleet.tufTampered.set(`${METADATA}timestamp.json`, (response) =>
        pour(response, Buffer.from("{"), 30),
      );
      await waits(stage, "download_too_slow");
    },
    mend: ({ fleet }) => fleet.tufTampered.clear(),
  },
  {
    name: "swapped target: another package under the name of a signed version",
    code: "package_hash_mismatch",
    run: async (stage) => {
      const { assignment } = await stage.prepare();
      const deployment = await stage.offer({ version: assignment.version });
      await stage.tells("refusal", "package_hash_mismatch", deployment);
    },
  },
  {
    name: "swapped target: another file than was signed, of those who direct",
    code: "trust_target_mismatch",
    run: async (stage) => {
      const { fleet } = stage;
      fleet.direct(fleet.key, STRANGER);
      const honest = stage.tuf.contents.get(DIRECTOR_TARGET)!;
      stage.tuf.contents.set(DIRECTOR_TARGET, Buffer.alloc(honest.length, 0x20));
      await refused(stage, "trust_target_mismatch");
    },
    mend: ({ fleet }) => fleet.direct(fleet.key),
  },
  {
    name: "wrong model for this device class",
    code: "device_class_mismatch",
    run: async (stage) => {
      stage.fleet.vouch(stage.evil, "brightness", 666, ["linux-riscv64", "win32-x64"]);
      await refused(stage, "device_class_mismatch");
    },
    mend: ({ tuf }) => void delete tuf.targets.targets[packageTargetPath("brightness", 666)],
  },
  {
    name: "replayed desired state",
    code: "desired_rollback_refused",
    run: async (stage) => {
      stage.fleet.sendDesired(stage.fleet.signDesired(await evilDesired(stage, { revision: 1 })));
      await stage.tells("warning", "desired_rollback_refused");
    },
  },
  {
    name: "compromised broker: a desired state of its own, of another device, and a command in its place",
    code: "desired_signature_invalid",
    run: async (stage) => {
      const { fleet } = stage;
      fleet.sendDesired(fleet.signDesired(await evilDesired(stage, { device: "another" })));
      fleet.sendDesired(
        sign(COMMAND_TYPE, encodeMessage("desired", await evilDesired(stage, {})), fleet.key),
      );
      fleet.sendDesired(Buffer.from("no envelope at all"));
      fleet.sendDesired(fleet.signDesired(await evilDesired(stage, {}), STRANGER));
      await stage.tells("warning", "desired_signature_invalid");
    },
  },
  {
    name: "compromised artifact store: other bytes under the hash of an honest file",
    code: "package_hash_mismatch",
    run: async (stage) => {
      const { made, assignment } = await stage.prepare();
      const { file, sha256 } = manifestFiles(made.manifest).find(({ file }) => file.endsWith(".onnx"))!;
      const bytes = readFileSync(join(made.dir, file));
      bytes[bytes.length >> 1]! ^= 1;
      stage.fleet.tampered.set(sha256, (response, range) => serveRange(response, bytes, range));
      stage.fleet.desire([assignment]);
      await stage.tells("refusal", "package_hash_mismatch", assignment.deployment);
    },
    mend: ({ fleet }) => fleet.tampered.clear(),
  },
  {
    name: "compromised online keys: director, snapshot and timestamp bring back a version that was withdrawn",
    code: "trust_rollback_refused",
    run: async (stage) => {
      const { tuf } = stage;
      // It was signed by mistake, and no device has seen it by the time at which it was withdrawn.
      stage.fleet.vouch(stage.evil, "brightness", 666);
      const withEvil = tuf.targets.version;
      delete tuf.targets.targets[packageTargetPath("brightness", 666)];
      await stage.recovers();
      tuf.snapshot.meta["targets.json"] = { version: withEvil };
      tuf.publish("snapshot", "timestamp");
      await refused(stage, "trust_rollback_refused");
      tuf.snapshot.meta = {};
      tuf.publish("snapshot", "timestamp");
      await refused(stage, "trust_metadata_malformed");
      tuf.targets.version = 1_000_000;
      stage.vouchForEvil([...tuf.signers.get("snapshot")!, ...tuf.signers.get("timestamp")!, makeTufKey()]);
      await refused(stage, "trust_signature_insufficient");
      tuf.snapshot.meta["targets.json"] = { version: withEvil };
      tuf.publish("snapshot", "timestamp");
      await refused(stage, "trust_rollback_refused");
    },
    mend: ({ tuf }) => {
      for (const role of ["snapshot", "timestamp"]) tuf.rotateKeys(role);
      tuf.publish("root");
    },
  },
  {
    name: "compromised director alone: a key that the targets keys have taken away",
    code: "desired_signature_invalid",
    run: async (stage) => {
      const { fleet } = stage;
      const stolen = createSigningKey((length) => new Uint8Array(length).fill(9));
      fleet.direct(fleet.key, stolen);
      await stage.recovers();
      fleet.direct(fleet.key);
      await stage.recovers();
      fleet.sendDesired(fleet.signDesired(await evilDesired(stage, {}), stolen));
      await stage.tells("warning", "desired_signature_invalid");
    },
  },
];

/** Sends the same again and again, for as long as somebody takes it. */
function pour(response: ServerResponse, chunk: Buffer, everyMs: number): void {
  response.writeHead(200);
  const timer = setInterval(() => response.write(chunk), everyMs);
  response.on("close", () => clearInterval(timer));
}
