import { expect } from "vitest";
import { makeTufKey } from "@fieldloop/device-agent/testing/tuf-keys";
import type { TufCase, TufStage } from "../../kit/tuf-stage.js";

type Edge = readonly [delegator: string, role: string, options?: { terminating?: boolean; paths?: string[] }];

interface Graph {
  readonly name: string;
  readonly edges: readonly Edge[];
  /** Roles in the order in which a search for a path that nobody names asks for them. */
  readonly visited: readonly string[];
}

const PYTHON = { paths: ["*.py"] };

const GRAPHS: readonly Graph[] = [
  { name: "basic-delegation", edges: [["targets", "A"]], visited: ["A"] },
  {
    name: "single-level-delegations",
    edges: [
      ["targets", "A"],
      ["targets", "B"],
    ],
    visited: ["A", "B"],
  },
  {
    name: "two-level-delegations",
    edges: [
      ["targets", "A"],
      ["targets", "B"],
      ["B", "C"],
    ],
    visited: ["A", "B", "C"],
  },
  {
    name: "two-level-test-DFS-order-of-traversal",
    edges: [
      ["targets", "A"],
      ["targets", "B"],
      ["A", "C"],
      ["A", "D"],
    ],
    visited: ["A", "C", "D", "B"],
  },
  {
    name: "three-level-delegation-test-DFS-order-of-traversal",
    edges: [
      ["targets", "A"],
      ["targets", "B"],
      ["A", "C"],
      ["C", "D"],
    ],
    visited: ["A", "C", "D", "B"],
  },
  {
    name: "two-level-terminating-ignores-all-but-roles-descendants",
    edges: [
      ["targets", "A"],
      ["targets", "B"],
      ["A", "C", { terminating: true }],
      ["A", "D"],
    ],
    visited: ["A", "C"],
  },
  {
    name: "three-level-terminating-ignores-all-but-roles-descendants",
    edges: [
      ["targets", "A"],
      ["targets", "B"],
      ["A", "C", { terminating: true }],
      ["C", "D"],
    ],
    visited: ["A", "C", "D"],
  },
  {
    name: "two-level-ignores-all-branches-not-matching-paths",
    edges: [
      ["targets", "A", PYTHON],
      ["targets", "B"],
      ["A", "C"],
    ],
    visited: ["B"],
  },
  {
    name: "three-level-ignores-all-branches-not-matching-paths",
    edges: [
      ["targets", "A"],
      ["targets", "B"],
      ["A", "C", PYTHON],
      ["C", "D"],
    ],
    visited: ["A", "B"],
  },
  {
    name: "cyclic-graph",
    edges: [
      ["targets", "A"],
      ["targets", "B"],
      ["B", "C"],
      ["C", "D"],
      ["D", "B"],
    ],
    visited: ["A", "B", "C", "D"],
  },
  {
    name: "two-roles-delegating-to-a-third",
    edges: [
      ["targets", "A"],
      ["targets", "B"],
      ["B", "C"],
      ["A", "C"],
    ],
    visited: ["A", "C", "B"],
  },
  {
    name: "two-roles-delegating-to-a-third-different-paths",
    edges: [
      ["targets", "A"],
      ["targets", "B"],
      ["B", "C"],
      ["A", "C", PYTHON],
    ],
    visited: ["A", "B", "C"],
  },
];

function draw(stage: TufStage, edges: readonly Edge[]): void {
  const key = makeTufKey();
  const { repository } = stage;
  // One key vouches for every role: which role a search visits is the question here, not by whom it is signed.
  for (const [delegator, role, options] of edges) {
    if (!repository.delegated.has(role)) repository.addRole(role);
    repository.delegate(delegator, role, { keys: [key], ...options });
    repository.signers.set(role, [key]);
  }
}

function asked(stage: TufStage): string[] {
  return stage.mount.metadata.slice(4).map(([role]) => role);
}

const TRAVERSALS: TufCase[] = GRAPHS.map(({ name, edges, visited }) => ({
  name: `visits roles depth first, in the order in which they are delegated: ${name}`,
  outside: `test_graph_traversal[${name}]`,
  ...(name === "cyclic-graph" ? { program: true as const } : {}),
  run: async (stage) => {
    draw(stage, edges);
    stage.repository.publishTargets(...stage.repository.delegated.keys());
    await stage.starts();
    await stage.refusesTarget("nowhere", "trust_target_unknown");
    expect(asked(stage)).toEqual(visited);
  },
}));

//              targets
//   *.doc *.md /   \ releases/*/*
//             A     B
//     releases/x/* / \ releases/y/*.zip
//                 C   D
const TREE: readonly Edge[] = [
  ["targets", "A", { paths: ["*.doc", "*.md"] }],
  ["targets", "B", { paths: ["releases/*/*"] }],
  ["B", "C", { paths: ["releases/x/*"] }],
  ["B", "D", { paths: ["releases/y/*.zip"] }],
];
const FILES = [
  ["targets", "targetfile"],
  ["A", "README.md"],
  ["C", "releases/x/x_v1"],
  ["D", "releases/y/y_v1.zip"],
  ["D", "releases/z/z_v1.zip"],
] as const;

const SEARCHES: [name: string, path: string, found: boolean, visited: string[]][] = [
  ["no delegations", "targetfile", true, []],
  ["targetpath matches wildcard", "README.md", true, ["A"]],
  ["targetpath with separators x", "releases/x/x_v1", true, ["B", "C"]],
  ["targetpath with separators y", "releases/y/y_v1.zip", true, ["B", "D"]],
  ["targetpath is not delegated by all roles in the chain", "releases/z/z_v1.zip", false, ["B"]],
  ["wildcard does not reach over a separator", "deep/README.md", false, []],
  ["wildcard does not match an empty part", "releases/x/", false, []],
];

const PATHS: TufCase[] = SEARCHES.map(([name, path, found, visited]) => ({
  name: `finds a target only where every role above it delegates its path: ${name}`,
  outside: `test_targetfile_search[${name}]`,
  run: async (stage) => {
    draw(stage, TREE);
    for (const [role, file] of FILES) stage.repository.addTarget(role, file, `${file} by ${role}`);
    stage.repository.publishTargets(...stage.repository.delegated.keys());
    await stage.starts();
    if (found) await stage.downloads(path);
    else await stage.refusesTarget(path, "trust_target_unknown");
    expect(stage.downloaded()).toHaveLength(found ? 1 : 0);
    expect(asked(stage)).toEqual(visited);
  },
}));

export const DELEGATIONS: readonly TufCase[] = [
  ...TRAVERSALS,
  ...PATHS,
  {
    name: "finds a target by the first digits of the hash of its path",
    outside: "test_hash_bins_graph_traversal",
    run: async (stage) => {
      const { repository } = stage;
      repository.delegate("targets", "low", { pathHashPrefixes: "01234567".split("") });
      repository.delegate("targets", "high", { pathHashPrefixes: "89abcdef".split("") });
      // SHA-256 of "file1.txt" begins with 55, that of "file8.txt" with ce.
      repository.addTarget("low", "file1.txt", "one");
      repository.addTarget("high", "file8.txt", "four");
      repository.publishTargets("low", "high");
      await stage.starts();
      await stage.downloads("file1.txt");
      expect(asked(stage)).toEqual(["low"]);
      await stage.downloads("file8.txt");
      expect(stage.downloaded()).toEqual(["one", "four"]);
    },
  },
  {
    name: "finds a target in succinct hash bins",
    outside: "test_succinct_roles_graph_traversal",
    run: async (stage) => {
      const { repository } = stage;
      const key = makeTufKey();
      repository.targets["delegations"] = {
        keys: { [key.keyId]: key.entry },
        succinct_roles: { keyids: [key.keyId], threshold: 1, bit_length: 2, name_prefix: "bin" },
      };
      const bins = ["bin-0", "bin-1", "bin-2", "bin-3"];
      for (const bin of bins) {
        repository.addRole(bin);
        repository.addSigner(bin, key);
      }
      // 0x55 = 0b01…, 0xce = 0b11…
      repository.addTarget("bin-1", "file1.txt", "one");
      repository.addTarget("bin-3", "file8.txt", "four");
      repository.publishTargets(...bins);
      await stage.starts();
      await stage.downloads(["file1.txt", "file8.txt"]);
      expect(asked(stage)).toEqual(["bin-1", "bin-3"]);
      expect(stage.downloaded()).toEqual(["one", "four"]);
    },
  },
  {
    name: "asks each delegator about a role that another one has vouched for",
    outside: "test_delegated_role_cache",
    program: true,
    run: async (stage) => {
      const { repository } = stage;
      const trusted = makeTufKey();
      repository.delegate("targets", "A", { paths: ["a-*"] });
      repository.delegate("targets", "B", { paths: ["b-*"] });
      repository.delegate("A", "C", { keys: [trusted] });
      repository.delegate("B", "C");
      repository.signers.set("C", [trusted]);
      repository.addTarget("C", "a-file", "of a");
      repository.addTarget("C", "b-file", "of b");
      repository.publishTargets("C", "A", "B");
      await stage.starts();
      await stage.refusesTarget(["a-file", "b-file"], "trust_signature_insufficient");
      expect(stage.downloaded()).toEqual(["of a"]);
    },
  },
  {
    name: "refuses a delegated role that its delegator's keys have not signed",
    run: async (stage) => {
      const { repository } = stage;
      repository.delegate("targets", "A");
      repository.addTarget("A", "file", "content");
      repository.signers.set("A", [makeTufKey(), ...repository.signers.get("targets")!]);
      repository.publishTargets("A");
      await stage.starts();
      await stage.refusesTarget("file", "trust_signature_insufficient");
      expect(stage.trusted()).toEqual({ root: 1, timestamp: 2, snapshot: 2, targets: 2 });
    },
  },
  {
    name: "refuses a delegated role of another version than the snapshot names",
    run: async (stage) => {
      const { repository } = stage;
      repository.delegate("targets", "A");
      repository.addTarget("A", "file", "content");
      repository.publishTargets("A");
      repository.targetsOf("A").version = 2;
      repository.publishAs("A", 1);
      await stage.starts();
      await stage.refusesTarget("file", "trust_metadata_mixed");
      expect(stage.downloaded()).toEqual([]);
    },
  },
  {
    name: "refuses a delegated role that the snapshot does not name",
    run: async (stage) => {
      const { repository } = stage;
      repository.delegate("targets", "A");
      repository.addTarget("A", "file", "content");
      repository.publish("A");
      delete repository.snapshot.meta["A.json"];
      repository.publish("targets", "snapshot", "timestamp");
      await stage.starts();
      await stage.refusesTarget("file", "trust_metadata_mixed");
    },
  },
  {
    name: "follows a delegated role to a new key when its delegator says so",
    run: async (stage) => {
      const { repository } = stage;
      repository.delegate("targets", "A");
      repository.addTarget("A", "one", "one");
      repository.publishTargets("A");
      await stage.starts();
      await stage.downloads("one");
      delete repository.targets["delegations"];
      repository.signers.set("A", []);
      repository.delegate("targets", "A");
      repository.addTarget("A", "two", "two");
      repository.publishTargets("A");
      await stage.downloads("two");
      expect(stage.trusted()).toMatchObject({ A: 2 });
    },
  },
];
