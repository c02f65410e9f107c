import { expect } from "vitest";
import { isoTime } from "@fieldloop/device-agent/testing/tuf-repository";
import type { TufCase, TufStage } from "../../kit/tuf-stage.js";

/** `2026-12-04T…Z`, so many days from now. */
function inDays(days: number): string {
  return isoTime(Date.now() + days * 86_400_000);
}

function delegate(stage: TufStage, expires: string): void {
  const { repository } = stage;
  repository.delegate("targets", "delegated", { paths: ["dir/*"] });
  repository.targetsOf("delegated").expires = expires;
  repository.addTarget("delegated", "dir/first", "first");
  repository.addTarget("delegated", "dir/second", "second");
  repository.publishTargets("delegated");
}

export const EXPIRY: readonly TufCase[] = [
  {
    name: "keeps an expired root that it walked to, and goes no further",
    outside: "test_root_expired",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      await stage.refreshes();
      repository.publish("root");
      await stage.refreshes();
      repository.root.expires = inDays(-1);
      repository.publish("root", "targets", "snapshot", "timestamp");
      await stage.refuses("trust_metadata_expired");
      expect(stage.trusted()).toEqual({ root: 3, timestamp: 1, snapshot: 1, targets: 1 });
    },
  },
  {
    name: "refuses an expired timestamp",
    outside: "test_timestamp_expired",
    program: true,
    run: async (stage) => {
      await stage.starts();
      await stage.refreshes();
      stage.repository.timestamp.expires = inDays(-5);
      stage.repository.publish("timestamp");
      await stage.refuses("trust_metadata_expired");
      expect(stage.trusted()).toEqual({ root: 1, timestamp: 1, snapshot: 1, targets: 1 });
    },
  },
  {
    name: "refuses an expired snapshot",
    outside: "test_snapshot_expired",
    run: async (stage) => {
      await stage.starts();
      await stage.refreshes();
      stage.repository.snapshot.expires = inDays(-5);
      stage.repository.publish("snapshot", "timestamp");
      await stage.refuses("trust_metadata_expired");
      expect(stage.trusted()).toEqual({ root: 1, timestamp: 2, snapshot: 1, targets: 1 });
    },
  },
  {
    name: "refuses expired targets",
    outside: "test_targets_expired",
    run: async (stage) => {
      await stage.starts();
      await stage.refreshes();
      stage.repository.targets.expires = inDays(-5);
      stage.repository.publish("targets", "snapshot", "timestamp");
      await stage.refuses("trust_metadata_expired");
      expect(stage.trusted()).toEqual({ root: 1, timestamp: 2, snapshot: 2, targets: 1 });
    },
  },
  {
    name: "comes from an expired root to a newer one",
    outside: "test_expired_local_root",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      repository.root.expires = inDays(7);
      repository.publish("root");
      await stage.refreshes();
      repository.root.expires = inDays(21);
      repository.publish("root");
      await stage.refreshes(18);
      expect(stage.trusted()).toMatchObject({ root: 3 });
    },
  },
  {
    name: "comes from an expired timestamp to a newer one",
    outside: "test_expired_local_timestamp",
    program: true,
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      repository.timestamp.expires = inDays(7);
      repository.publish("timestamp");
      await stage.refreshes();
      repository.timestamp.expires = inDays(21);
      repository.publish("targets", "snapshot", "timestamp");
      await stage.refreshes(18);
      expect(stage.trusted()).toEqual({ root: 1, timestamp: 3, snapshot: 2, targets: 2 });
    },
  },
  {
    name: "notices that the time has gone on",
    outside: "test_faketime",
    program: true,
    run: async (stage) => {
      await stage.starts();
      stage.repository.root.expires = inDays(7);
      stage.repository.publish("root");
      await stage.refreshes();
      await stage.refuses("trust_metadata_expired", 8);
    },
  },
  {
    name: "does not use a delegated role that has expired, though what is above it has not",
    outside: "test_delegated_targets_expired",
    run: async (stage) => {
      await stage.starts();
      delegate(stage, inDays(-1));
      await stage.refreshes();
      await stage.refusesTarget("dir/first", "trust_metadata_expired");
      expect(stage.downloaded()).toEqual([]);
      expect(stage.trusted()).toEqual({ root: 1, timestamp: 2, snapshot: 2, targets: 2 });
    },
  },
  {
    name: "does not go on using a delegated role after it has expired",
    outside: "test_expired_local_delegated_targets",
    run: async (stage) => {
      await stage.starts();
      delegate(stage, inDays(7));
      await stage.downloads("dir/first");
      await stage.refusesTarget("dir/second", "trust_metadata_expired", 18);
      expect(stage.downloaded()).toEqual(["first"]);
    },
  },
  {
    name: "comes from an expired delegated role to a newer one",
    outside: "test_expired_local_delegated_targets_updates",
    run: async (stage) => {
      await stage.starts();
      delegate(stage, inDays(7));
      await stage.downloads("dir/first");
      stage.repository.targetsOf("delegated").expires = inDays(21);
      stage.repository.publish("delegated", "snapshot", "timestamp");
      await stage.downloads("dir/second", 18);
      expect(stage.downloaded()).toEqual(["first", "second"]);
    },
  },
  {
    name: "does not believe a clock that goes back behind what it knows to have expired",
    run: async (stage) => {
      await stage.starts();
      await stage.refreshes();
      await stage.refuses("trust_metadata_expired", 40);
      await stage.refuses("trust_clock_back");
      stage.repository.publish("timestamp");
      await stage.refreshes();
    },
  },
];
