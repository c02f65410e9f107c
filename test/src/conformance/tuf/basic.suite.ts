import { expect } from "vitest";
import { makeTufKey } from "@fieldloop/device-agent/testing/tuf-keys";
import type { ErrorCode } from "@fieldloop/protocol";
import type { TufCase } from "../../kit/tuf-stage.js";

const ROLES = ["root", "timestamp", "snapshot", "targets"] as const;
const FIRST_REFRESH = [
  ["root", 2],
  ["timestamp", null],
  ["snapshot", 1],
  ["targets", 1],
];

/** What is trusted after everything up to a role was new, and that role was refused. */
const UP_TO: Record<(typeof ROLES)[number], Record<string, number>> = {
  root: { root: 1 },
  timestamp: { root: 2 },
  snapshot: { root: 2, timestamp: 2 },
  targets: { root: 2, timestamp: 2, snapshot: 2 },
};

const UNSIGNED: TufCase[] = ROLES.map((role) => ({
  name: `refuses unsigned ${role} metadata and keeps what came before them`,
  outside: `test_unsigned_metadata[${role}]`,
  ...(role === "timestamp" ? { program: true as const } : {}),
  run: async (stage) => {
    const { repository } = stage;
    repository.signers.set(role, []);
    repository.publish("root", "targets", "snapshot", "timestamp");
    await stage.starts();
    await stage.refuses("trust_signature_insufficient");
    expect(stage.trusted()).toEqual(UP_TO[role]);
  },
}));

const MISNUMBERED: [role: "root" | "snapshot" | "targets", code: ErrorCode][] = [
  ["root", "trust_rollback_refused"],
  ["snapshot", "trust_metadata_mixed"],
  ["targets", "trust_metadata_mixed"],
];
const NUMBERS: TufCase[] = MISNUMBERED.map(([role, code]) => ({
  name: `refuses ${role} metadata of another version than their address says`,
  outside: `test_url_and_metadata_version_mismatch[${role}]`,
  run: async (stage) => {
    const { repository } = stage;
    for (const each of ["root", "targets", "snapshot", "timestamp"]) {
      if (each !== role) {
        repository.publish(each);
        continue;
      }
      repository.signed(role).version = 3;
      repository.publishAs(role, 2);
      const list = role === "snapshot" ? repository.timestamp : repository.snapshot;
      if (role !== "root") list.meta[`${role}.json`] = { version: 2 };
    }
    await stage.starts();
    await stage.refuses(code);
    expect(stage.trusted()).toEqual(UP_TO[role]);
  },
}));

export const BASIC: readonly TufCase[] = [
  {
    name: "asks for the next root, timestamp, snapshot and targets, in this order",
    outside: "test_basic_refresh_requests",
    program: true,
    run: async (stage) => {
      await stage.starts();
      expect(stage.mount.metadata).toEqual([]);
      await stage.refreshes();
      expect(stage.mount.metadata).toEqual(FIRST_REFRESH);
    },
  },
  {
    name: "trusts what was published",
    outside: "test_basic_refresh_trusted_data",
    run: async (stage) => {
      await stage.starts();
      await stage.refreshes();
      for (const role of ROLES) stage.trusts(role, stage.repository.file(role));
    },
  },
  {
    name: "refreshes before it looks for a target, and trusts the metadata though there is none",
    outside: "test_implicit_refresh",
    run: async (stage) => {
      await stage.starts();
      await stage.refusesTarget("nowhere", "trust_target_unknown");
      expect(stage.mount.metadata).toEqual(FIRST_REFRESH);
      for (const role of ROLES) stage.trusts(role, stage.repository.file(role));
    },
  },
  {
    name: "does not start from a root without a version, and asks nobody",
    outside: "test_invalid_initial_root",
    program: true,
    run: async (stage) => {
      const root = JSON.parse(stage.repository.factoryRoot.toString()) as { signed: { version?: number } };
      delete root.signed.version;
      expect(await stage.init(Buffer.from(JSON.stringify(root)))).toEqual({
        code: 1,
        error: "trust_metadata_malformed",
      });
      await stage.refuses("not_found");
      expect(stage.mount.requests).toEqual([]);
    },
  },
  {
    name: "does not start from a root that its keys have not signed, and asks nobody",
    outside: "test_unsigned_initial_root",
    run: async (stage) => {
      stage.repository.signers.set("root", [makeTufKey()]);
      expect(await stage.init(stage.repository.serialize("root"))).toEqual({
        code: 1,
        error: "trust_signature_insufficient",
      });
      await stage.refuses("not_found");
      expect(stage.mount.requests).toEqual([]);
    },
  },
  ...UNSIGNED,
  ...NUMBERS,
  {
    name: "keeps a timestamp whose content changed without another version",
    outside: "test_timestamp_content_changes",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      await stage.refreshes();
      const kept = repository.file("timestamp");
      repository.timestamp.meta["snapshot.json"] = { version: 100 };
      repository.publishAs("timestamp");
      await stage.refreshes();
      expect(stage.lastAsked()).toEqual(["timestamp", null]);
      stage.trusts("timestamp", kept);
    },
  },
  {
    name: "accepts metadata whose hashes and lengths are listed, and refuses others",
    outside: "test_basic_metadata_hash_support",
    run: async (stage) => {
      const { repository } = stage;
      repository.withHashes = true;
      repository.publish("targets", "snapshot", "timestamp");
      await stage.starts();
      await stage.refreshes();
      repository.publish("targets");
      repository.snapshot.meta["targets.json"]!["hashes"] = { sha256: "46".repeat(32) };
      repository.publish("snapshot", "timestamp");
      await stage.refuses("trust_metadata_mixed");
      expect(stage.trusted()).toEqual({ root: 1, timestamp: 3, snapshot: 3, targets: 2 });
    },
  },
  {
    name: "refuses metadata of another length than is listed",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      await stage.refreshes();
      repository.withHashes = true;
      repository.publish("targets", "snapshot");
      const entry = repository.timestamp.meta["snapshot.json"]!;
      entry["length"] = Number(entry["length"]) + 1;
      repository.publish("timestamp");
      await stage.refuses("trust_metadata_mixed");
      expect(stage.trusted()).toEqual({ root: 1, timestamp: 2, snapshot: 1, targets: 1 });
    },
  },
  {
    name: "keeps the very bytes that it received",
    outside: "test_metadata_bytes_match",
    run: async (stage) => {
      const odd = Buffer.concat([stage.repository.file("timestamp"), Buffer.from(" \n ")]);
      stage.repository.files.set("timestamp.json", odd);
      await stage.starts();
      await stage.refreshes();
      stage.trusts("timestamp", odd);
    },
  },
  {
    name: "takes fields that it does not know into account, and does not mind them",
    outside: "test_custom_fields",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      await stage.refreshes();
      repository.addKey("root", makeTufKey("ed25519", { "extra-field": { a: 1, b: [2, "ü"] } }));
      repository.root["custom-field"] = "value";
      repository.root.roles["root"]!["another-field"] = { deep: [true, null] };
      repository.publish("root");
      await stage.refreshes();
      expect(stage.trusted()).toMatchObject({ root: 2 });
    },
  },
  {
    name: "does not mind what a key says of hash algorithms for its id",
    outside: "test_deprecated_keyid_hash_algorithms",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      repository.dropKeys("snapshot");
      repository.addKey("snapshot", makeTufKey("ed25519", { keyid_hash_algorithms: "md5" }));
      repository.publish("root", "snapshot", "timestamp");
      await stage.refreshes();
      expect(stage.trusted()).toMatchObject({ root: 2, snapshot: 2 });
    },
  },
  {
    name: "refuses a timestamp that names a snapshot which is not there, but knows of it from then on",
    outside: "test_snapshot_404",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      await stage.refreshes();
      repository.timestamp.meta["snapshot.json"] = { version: 2 };
      repository.publish("timestamp");
      await stage.refuses("trust_unreachable");
      expect(stage.lastAsked()).toEqual(["snapshot", 2]);
      expect(stage.trusted()).toEqual({ root: 1, snapshot: 1, targets: 1, timestamp: 2 });
    },
  },
  {
    name: "refuses a snapshot that names targets which are not there, but knows of them from then on",
    outside: "test_targets_404",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      await stage.refreshes();
      repository.snapshot.meta["targets.json"] = { version: 2 };
      repository.publish("snapshot", "timestamp");
      await stage.refuses("trust_unreachable");
      expect(stage.lastAsked()).toEqual(["targets", 2]);
      expect(stage.trusted()).toEqual({ root: 1, snapshot: 2, targets: 1, timestamp: 2 });
    },
  },
  {
    name: "fails without a timestamp",
    outside: "test_timestamp_404",
    run: async (stage) => {
      await stage.starts();
      await stage.refreshes();
      stage.repository.files.delete("timestamp.json");
      await stage.refuses("trust_unreachable");
      expect(stage.lastAsked()).toEqual(["timestamp", null]);
    },
  },
  {
    name: "refuses a well-signed snapshot in the place of the timestamp",
    outside: "test_incorrect_metadata_type",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      const timestampKey = repository.signers.get("timestamp")![0]!;
      repository.addKey("snapshot", timestampKey);
      repository.snapshot.meta["snapshot.json"] = { version: 1 };
      repository.publish("root", "snapshot");
      repository.files.set("timestamp.json", repository.file("snapshot"));
      await stage.refuses("trust_metadata_malformed");
      expect(stage.trusted()).toEqual({ root: 2 });
    },
  },
  {
    name: "does not ask for targets that the snapshot does not name yet",
    outside: "test_new_targets_version_mismatch",
    run: async (stage) => {
      await stage.starts();
      await stage.refreshes();
      stage.repository.publish("targets");
      await stage.refreshes();
      expect(stage.lastAsked()).toEqual(["timestamp", null]);
      expect(stage.trusted()).toMatchObject({ targets: 1 });
    },
  },
  {
    name: "reads a repository without version numbers in its addresses",
    run: async (stage) => {
      const { repository } = stage;
      repository.root.consistent_snapshot = false;
      repository.addTarget("targets", "a/file", "plain");
      repository.publish("root", "targets", "snapshot", "timestamp");
      await stage.starts();
      await stage.downloads("a/file");
      expect(stage.mount.metadata).toEqual([
        ["root", 2],
        ["root", 3],
        ["timestamp", null],
        ["snapshot", null],
        ["targets", null],
      ]);
      expect(stage.mount.targets).toEqual([["a/file", null]]);
      expect(stage.downloaded()).toEqual(["plain"]);
    },
  },
  {
    name: "keeps to the root that it started from when it is started once more",
    run: async (stage) => {
      await stage.starts();
      await stage.refreshes();
      await stage.starts();
      expect(stage.trusted()).toEqual({ root: 1, timestamp: 1, snapshot: 1, targets: 1 });
      stage.repository.publish("root");
      expect(await stage.init(stage.repository.file("root"))).toEqual({ code: 1, error: "already_exists" });
    },
  },
];
