import { expect } from "vitest";
import { hashOf } from "@fieldloop/device-agent/testing/tuf-repository";
import type { TufCase } from "../../kit/tuf-stage.js";

const CONTENT = "content of the target";
const FILE = "file.txt";

const ALGORITHMS: ("sha256" | "sha512")[][] = [["sha256"], ["sha512"], ["sha256", "sha512"]];
const HASHES: TufCase[] = ALGORITHMS.map((names) => ({
  name: `checks a target by ${names.join(" and ")}`,
  outside: `test_download_with_hash_algorithms[${names.join("-")}]`,
  run: async (stage) => {
    const { repository } = stage;
    const entry = repository.addTarget("targets", FILE, CONTENT);
    entry.hashes = Object.fromEntries(names.map((name) => [name, hashOf(name, Buffer.from(CONTENT))]));
    repository.publishTargets();
    await stage.starts();
    await stage.downloads(FILE);
    expect(stage.mount.targets).toEqual([[FILE, entry.hashes[names[0]!]]]);
    expect(stage.downloaded()).toEqual([CONTENT]);
  },
}));

export const DOWNLOAD: readonly TufCase[] = [
  {
    name: "downloads a target, and nothing before it is asked to",
    outside: "test_client_downloads_expected_file",
    program: true,
    run: async (stage) => {
      await stage.starts();
      stage.repository.addTarget("targets", FILE, CONTENT);
      stage.repository.publishTargets();
      await stage.refreshes();
      expect(stage.downloaded()).toEqual([]);
      await stage.downloads(FILE);
      expect(stage.downloaded()).toEqual([CONTENT]);
    },
  },
  {
    name: "downloads a target that lies in folders",
    outside: "test_client_downloads_expected_file_in_sub_dir",
    run: async (stage) => {
      const path = "a/few/folders/deep/file.txt";
      const entry = stage.repository.addTarget("targets", path, CONTENT);
      stage.repository.publishTargets();
      await stage.starts();
      await stage.downloads(path);
      expect(stage.downloaded()).toEqual([CONTENT]);
      expect(stage.mount.targets).toEqual([[path, entry.hashes["sha256"]]]);
    },
  },
  {
    name: "does not take another content for a target, whether it has the target already or not",
    outside: "test_repository_substitutes_target_file",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      repository.addTarget("targets", FILE, CONTENT);
      repository.addTarget("targets", "other", "another target");
      repository.publishTargets();
      await stage.downloads(FILE);
      for (const path of [FILE, "other"]) repository.contents.set(path, Buffer.from("malicious content"));
      await stage.downloads(FILE);
      await stage.refusesTarget("other", "trust_target_mismatch");
      expect(stage.downloaded()).toEqual([CONTENT]);
    },
  },
  {
    name: "follows a target through many versions, and never to a content that was not signed",
    outside: "test_multiple_changes_to_target",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      repository.addTarget("targets", FILE, CONTENT);
      repository.publishTargets();
      await stage.downloads(FILE);
      for (let version = 0; version < 11; version++) {
        repository.addTarget("targets", FILE, `version ${version}`);
        repository.addTarget("targets", `new-${version}`, `new file ${version}`);
        repository.publishTargets();
        // This client sees every fifth version only.
        if (version % 5 !== 0) continue;
        await stage.downloads(FILE);
        await stage.downloads(`new-${version}`);
        repository.contents.set(FILE, Buffer.from(`malicious ${version}`));
        repository.publishTargets();
        await stage.downloads(FILE);
        expect(stage.downloaded().slice(-2)).toEqual([`version ${version}`, `new file ${version}`]);
      }
      expect(stage.downloaded()).toEqual(["new file 0", "new file 5", "version 10", "new file 10"]);
    },
  },
  ...HASHES,
  {
    name: "refuses a target with a hash algorithm that it does not know",
    outside: "test_download_with_unknown_hash_algorithm",
    run: async (stage) => {
      const entry = stage.repository.addTarget("targets", FILE, CONTENT);
      entry.hashes = { "unknown-hash": entry.hashes["sha256"]! };
      stage.repository.publishTargets();
      await stage.starts();
      await stage.refusesTarget(FILE, "trust_metadata_malformed");
      expect(stage.downloaded()).toEqual([]);
    },
  },
  {
    name: "does not fetch a target again that it has, not even within one call",
    outside: "test_artifact_cache",
    program: true,
    run: async (stage) => {
      stage.repository.addTarget("targets", FILE, CONTENT);
      stage.repository.publishTargets();
      await stage.starts();
      await stage.downloads([FILE, FILE]);
      await stage.downloads(FILE);
      expect(stage.mount.targets).toHaveLength(1);
    },
  },
  {
    name: "downloads several targets in order, and stops at the first that it refuses",
    run: async (stage) => {
      const { repository } = stage;
      for (const name of ["one", "two", "three"]) repository.addTarget("targets", name, name);
      repository.publishTargets();
      repository.contents.set("two", Buffer.from("2wo"));
      await stage.starts();
      await stage.refusesTarget(["one", "two", "three"], "trust_target_mismatch");
      expect(stage.downloaded()).toEqual(["one"]);
      expect(stage.mount.targets.map(([path]) => path)).toEqual(["one", "two"]);
    },
  },
  {
    name: "refuses a target that is longer or shorter than signed",
    run: async (stage) => {
      const { repository } = stage;
      repository.addTarget("targets", FILE, CONTENT);
      repository.publishTargets();
      await stage.starts();
      for (const content of [`${CONTENT}!`, CONTENT.slice(1), ""]) {
        repository.contents.set(FILE, Buffer.from(content));
        await stage.refusesTarget(FILE, "trust_target_mismatch");
      }
      expect(stage.downloaded()).toEqual([]);
    },
  },
  {
    name: "fetches a target anew that was harmed on disk",
    run: async (stage) => {
      const { repository } = stage;
      repository.addTarget("targets", FILE, CONTENT);
      repository.publishTargets();
      await stage.starts();
      await stage.downloads(FILE);
      stage.harm(FILE);
      await stage.downloads(FILE);
      expect(stage.downloaded()).toEqual([CONTENT]);
      expect(stage.mount.targets).toHaveLength(2);
    },
  },
];
