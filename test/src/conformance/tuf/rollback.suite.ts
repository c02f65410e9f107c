import { expect } from "vitest";
import type { TufCase } from "../../kit/tuf-stage.js";

const WAYS = [
  [false, "basic"],
  [true, "with hashes"],
] as const;

export const ROLLBACK: readonly TufCase[] = [
  {
    name: "does not ask for a snapshot that it has, whatever the repository serves by now",
    outside: "test_simple_snapshot_rollback",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      repository.publish("snapshot", "timestamp");
      await stage.refreshes();
      repository.snapshot.version = 1;
      repository.publishAs("snapshot", 2);
      await stage.refreshes();
      expect(stage.trusted()).toMatchObject({ snapshot: 2 });
      expect(stage.lastAsked()).toEqual(["timestamp", null]);
    },
  },
  {
    name: "refuses an older timestamp",
    outside: "test_new_timestamp_version_rollback",
    program: true,
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      repository.publish("timestamp");
      await stage.refreshes();
      repository.timestamp.version = 1;
      repository.publishAs("timestamp");
      await stage.refuses("trust_rollback_refused");
      expect(stage.trusted()).toMatchObject({ timestamp: 2 });
      expect(stage.lastAsked()).toEqual(["timestamp", null]);
    },
  },
  ...WAYS.map(
    ([withHashes, way]): TufCase => ({
      name: `refuses a timestamp that names an older snapshot, ${way}`,
      outside: `test_snapshot_rollback[${way}]`,
      run: async (stage) => {
        const { repository } = stage;
        repository.withHashes = withHashes;
        await stage.starts();
        repository.publish("snapshot", "timestamp");
        await stage.refreshes();
        repository.snapshot.version = 1;
        repository.publishAs("snapshot");
        repository.publish("timestamp");
        await stage.refuses("trust_rollback_refused");
        expect(stage.trusted()).toMatchObject({ timestamp: 2, snapshot: 2 });
        expect(stage.lastAsked()).toEqual(["timestamp", null]);
      },
    }),
  ),
  ...WAYS.map(
    ([withHashes, way]): TufCase => ({
      name: `refuses a snapshot that names older targets, ${way}`,
      outside: `test_targets_rollback[${way}]`,
      run: async (stage) => {
        const { repository } = stage;
        await stage.starts();
        repository.withHashes = withHashes;
        repository.publish("targets");
        repository.publish("targets", "snapshot", "timestamp");
        await stage.refreshes();
        repository.targets.version = 1;
        repository.publishAs("targets");
        repository.publish("snapshot", "timestamp");
        await stage.refuses("trust_rollback_refused");
        expect(stage.trusted()).toEqual({ root: 1, timestamp: 3, snapshot: 2, targets: 3 });
      },
    }),
  ),
  {
    name: "refuses a snapshot that no longer names a role",
    run: async (stage) => {
      const { repository } = stage;
      repository.delegate("targets", "delegated");
      repository.publishTargets("delegated");
      await stage.starts();
      await stage.refreshes();
      delete repository.snapshot.meta["delegated.json"];
      repository.publish("snapshot", "timestamp");
      await stage.refuses("trust_rollback_refused");
      expect(stage.trusted()).toMatchObject({ timestamp: 3, snapshot: 2 });
    },
  },
  {
    name: "refuses a snapshot of another version than the timestamp names",
    outside: "test_new_snapshot_version_mismatch",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      repository.snapshot.version = 2;
      repository.publishAs("snapshot", 1);
      repository.timestamp.meta["snapshot.json"] = { version: 1 };
      repository.publishAs("timestamp");
      await stage.refuses("trust_metadata_mixed");
      expect(stage.trusted()).toEqual({ root: 1, timestamp: 1 });
      expect(stage.lastAsked()).toEqual(["snapshot", 1]);
    },
  },
  {
    name: "comes back from targets that ran ahead, when the snapshot has a new key",
    outside: "test_new_targets_fast_forward_recovery",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      repository.targets.version = 99_999;
      repository.publish("targets", "snapshot", "timestamp");
      await stage.refreshes();
      expect(stage.trusted()).toMatchObject({ targets: 100_000 });
      repository.rotateKeys("snapshot");
      repository.targets.version = 1;
      repository.publish("root", "targets", "snapshot", "timestamp");
      await stage.refreshes();
      expect(stage.trusted()).toMatchObject({ targets: 2 });
    },
  },
  {
    name: "comes back from a snapshot that ran ahead, when snapshot and timestamp have new keys",
    outside: "test_new_snapshot_fast_forward_recovery",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      repository.snapshot.version = 99_999;
      repository.publish("snapshot", "timestamp");
      await stage.refreshes();
      expect(stage.trusted()).toMatchObject({ snapshot: 100_000 });
      repository.rotateKeys("snapshot");
      repository.rotateKeys("timestamp");
      repository.snapshot.version = 0;
      repository.publish("root", "snapshot", "timestamp");
      await stage.refreshes();
      expect(stage.trusted()).toMatchObject({ snapshot: 1 });
    },
  },
  {
    name: "comes back from a timestamp that ran ahead, when the timestamp has a new key",
    outside: "test_new_timestamp_fast_forward_recovery",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      repository.timestamp.version = 99_999;
      repository.publish("timestamp");
      await stage.refreshes();
      expect(stage.trusted()).toMatchObject({ timestamp: 100_000 });
      repository.timestamp.version = 0;
      repository.publish("timestamp");
      await stage.refuses("trust_rollback_refused");
      repository.rotateKeys("timestamp");
      repository.publish("root", "timestamp");
      await stage.refreshes();
      expect(stage.trusted()).toMatchObject({ timestamp: 2 });
    },
  },
];
