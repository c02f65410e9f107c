import { expect } from "vitest";
import { makeTufKey, type TufKey } from "@fieldloop/device-agent/testing/tuf-keys";
import type { TufCase, TufStage } from "../../kit/tuf-stage.js";

/** Keys by number: which a role lists, how many must sign, which have signed. */
interface Signing {
  readonly keys: readonly number[];
  readonly threshold: number;
  readonly signed: readonly number[];
}

const of = (threshold: number, keys: readonly number[], signed: readonly number[]): Signing => ({
  threshold,
  keys,
  signed,
});
const FIVE = [0, 1, 2, 3, 4];
const NEXT_FIVE = [0, 1, 3, 4, 5];

/** Roots in order, the first of them trusted; `false`: the last one must be refused. */
const ROOTS: [name: string, accepted: boolean, ...roots: Signing[]][] = [
  ["1-of-1-key-rotation", true, of(1, [1], [1]), of(1, [2], [2, 1]), of(1, [2], [2])],
  [
    "1-of-1-key-rotation-unused-signatures",
    true,
    of(1, [1], [3, 1, 4]),
    of(1, [2], [3, 2, 1, 4]),
    of(1, [2], [3, 2, 4]),
  ],
  [
    "3-of-5-sign-with-different-keycombos",
    true,
    of(3, FIVE, [0, 2, 4]),
    of(3, FIVE, [0, 4, 1]),
    of(3, FIVE, [0, 1, 3]),
    of(3, FIVE, [0, 1, 3]),
  ],
  ["3-of-5-one-key-rotated", true, of(3, FIVE, [0, 2, 4]), of(3, NEXT_FIVE, [0, 4, 1])],
  [
    "3-of-5-one-key-rotated-with-intermediate-step",
    true,
    of(3, FIVE, [0, 2, 4]),
    of(3, NEXT_FIVE, [0, 2, 4, 5]),
    of(3, NEXT_FIVE, [0, 4, 5]),
  ],
  [
    "3-of-5-all-keys-rotated-with-intermediate-step",
    true,
    of(3, FIVE, [0, 2, 4]),
    of(3, [5, 6, 7, 8, 9], [0, 2, 4, 5, 6, 7]),
    of(3, [5, 6, 7, 8, 9], [5, 6, 7]),
  ],
  ["1-of-3-threshold-increase-to-2-of-3", true, of(1, [1, 2, 3], [1]), of(2, [1, 2, 3], [1, 2])],
  [
    "2-of-3-threshold-decrease-to-1-of-3",
    true,
    of(2, [1, 2, 3], [1, 2]),
    of(1, [1, 2, 3], [1, 2]),
    of(1, [1, 2, 3], [1]),
  ],
  ["1-of-2-threshold-increase-to-2-of-2", true, of(1, [1], [1]), of(2, [1, 2], [1, 2])],
  ["1-of-1-key-rotation-fail-not-signed-with-old-key", false, of(1, [1], [1]), of(1, [2], [2, 3, 4])],
  ["1-of-1-key-rotation-fail-not-signed-with-new-key", false, of(1, [1], [1]), of(1, [2], [1, 3, 4])],
  [
    "3-of-5-one-key-rotate-fails-not-signed-with-3-new-keys",
    false,
    of(3, FIVE, [0, 2, 4]),
    of(3, NEXT_FIVE, [0, 2, 4]),
  ],
  [
    "3-of-5-one-key-rotate-fails-not-signed-with-3-old-keys",
    false,
    of(3, FIVE, [0, 2, 4]),
    of(3, NEXT_FIVE, [0, 4, 5]),
  ],
  [
    "1-of-3-threshold-bump-to-2-of-3-fails-new-threshold-not-reached",
    false,
    of(1, [1, 2, 3], [1]),
    of(2, [1, 2, 3], [2]),
  ],
  [
    "2-of-3-threshold-decr-to-1-of-3-fails-old-threshold-not-reached",
    false,
    of(2, [1, 2, 3], [1, 2]),
    of(1, [1, 2, 3], [1]),
  ],
];

const OTHERS: [name: string, accepted: boolean, signing: Signing][] = [
  ["1-of-1-key-rotation", true, of(1, [2], [2])],
  ["1-of-1-key-rotation-unused-signatures", true, of(1, [1], [3, 1, 4])],
  ["1-of-1-key-rotation-fail-not-signed-with-new-key", false, of(1, [2], [1, 3, 4])],
  ["3-of-5-one-key-signature-wrong-not-signed-with-3-expected-keys", false, of(3, NEXT_FIVE, [0, 2, 4])],
  ["2-of-5-one-key-signature-missing-threshold-not-reached", false, of(3, NEXT_FIVE, [0, 4])],
  ["3-of-5-sign-first-combo", true, of(3, FIVE, [0, 2, 4])],
  ["3-of-5-sign-second-combo", true, of(3, FIVE, [0, 4, 1])],
  ["3-of-5-sign-third-combo", true, of(3, FIVE, [0, 1, 3])],
  ["3-of-5-sign-fourth-combo", true, of(3, FIVE, [1, 2, 3])],
  ["3-of-5-sign-fifth-combo", true, of(3, FIVE, [2, 3, 4])],
];

function apply(stage: TufStage, role: string, signing: Signing, pool: readonly TufKey[]): void {
  const { repository } = stage;
  repository.dropKeys(role);
  repository.root.roles[role]!.threshold = signing.threshold;
  for (const number of signing.keys) repository.listKey(role, pool[number]!);
  for (const number of signing.signed) repository.addSigner(role, pool[number]!);
}

const makePool = (): TufKey[] => Array.from({ length: 10 }, () => makeTufKey());

export const ROTATION: readonly TufCase[] = [
  ...ROOTS.map(
    ([name, accepted, ...roots]): TufCase => ({
      name: `walks roots that old and new keys have signed: ${name}`,
      outside: `test_root_rotation[${name}]`,
      ...(name === "3-of-5-all-keys-rotated-with-intermediate-step" ? { program: true as const } : {}),
      run: async (stage) => {
        const { repository } = stage;
        const pool = makePool();
        roots.forEach((signing, index) => {
          apply(stage, "root", signing, pool);
          repository.root.version = index + 1;
          repository.publishAs("root");
        });
        await stage.starts();
        if (accepted) await stage.refreshes();
        else await stage.refuses("trust_signature_insufficient");
        stage.trusts("root", repository.file("root", accepted ? roots.length : roots.length - 1));
      },
    }),
  ),
  ...OTHERS.map(
    ([name, accepted, signing]): TufCase => ({
      name: `follows the root to other keys of timestamp, snapshot and targets: ${name}`,
      outside: `test_non_root_rotations[${name}]`,
      run: async (stage) => {
        const { repository } = stage;
        const pool = makePool();
        await stage.starts();
        for (const role of ["timestamp", "snapshot", "targets"]) {
          apply(stage, role, signing, pool);
          repository.publish("root", "targets", "snapshot", "timestamp");
          if (accepted) {
            await stage.refreshes();
            stage.trusts(role, repository.file(role));
            continue;
          }
          await stage.refuses("trust_signature_insufficient");
          // The next role is looked at with this one in order.
          apply(stage, role, of(1, [9], [9]), pool);
        }
      },
    }),
  ),
  {
    name: "walks as many roots as were published meanwhile",
    run: async (stage) => {
      for (let count = 0; count < 40; count++) {
        const before = stage.repository.signers.get("root")!;
        stage.repository.rotateKeys("root");
        stage.repository.signers.set("root", [...before, ...stage.repository.signers.get("root")!]);
        stage.repository.publish("root");
        stage.repository.signers.set("root", stage.repository.signers.get("root")!.slice(-1));
      }
      await stage.starts();
      await stage.refreshes();
      expect(stage.trusted()).toEqual({ root: 41, timestamp: 1, snapshot: 1, targets: 1 });
    },
  },
];
