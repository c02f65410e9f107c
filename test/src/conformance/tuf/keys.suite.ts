import { expect } from "vitest";
import { aliasOf, makeTufKey, type KeyKind } from "@fieldloop/device-agent/testing/tuf-keys";
import type { TufCase } from "../../kit/tuf-stage.js";

const KINDS: [kind: KeyKind, name: string][] = [
  ["rsa", "rsa/rsassa-pss-sha256"],
  ["ecdsa", "ecdsa/ecdsa-sha2-nistp256"],
  ["ed25519", "ed25519/ed25519"],
];
const KEY_TYPES: TufCase[] = KINDS.map(([kind, name]) => ({
  name: `verifies ${name} signatures`,
  outside: `test_keytype_and_scheme[${name}]`,
  run: async (stage) => {
    const { repository } = stage;
    await stage.starts();
    const key = repository.addKey("root", makeTufKey(kind));
    repository.root.roles["root"]!.threshold = 2;
    repository.publish("root");
    await stage.refreshes();
    expect(stage.trusted()).toMatchObject({ root: 2 });
    repository.publish("root");
    repository.edit("root", ({ signatures }) => {
      const signature = signatures.find((each) => (each as { keyid: string }).keyid === key.keyId);
      // As such a signature looks, but over something else.
      Object.assign(signature as object, { sig: key.sign(Buffer.from("another text")) });
    });
    await stage.refuses("trust_signature_insufficient");
    expect(stage.trusted()).toMatchObject({ root: 2 });
  },
}));

export const KEYS: readonly TufCase[] = [
  {
    name: "refuses a snapshot with one signature too few",
    outside: "test_snapshot_does_not_meet_threshold",
    program: true,
    run: async (stage) => {
      const { repository } = stage;
      repository.root.roles["snapshot"]!.threshold = 3;
      for (let count = 0; count < 2; count++) repository.addKey("snapshot");
      repository.publish("root", "targets", "snapshot", "timestamp");
      await stage.starts();
      await stage.refreshes();
      repository.signers.get("snapshot")!.pop();
      repository.publish("targets", "snapshot", "timestamp");
      await stage.refuses("trust_signature_insufficient");
      expect(stage.trusted()).toEqual({ root: 2, timestamp: 3, snapshot: 2, targets: 2 });
    },
  },
  {
    name: "refuses a snapshot whose threshold is above the number of its keys",
    outside: "test_snapshot_has_too_few_keys",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      for (let count = 0; count < 4; count++) repository.addKey("snapshot");
      repository.root.roles["snapshot"]!.threshold = 6;
      repository.publish("root", "snapshot", "timestamp");
      await stage.refuses("trust_signature_insufficient");
      expect(stage.trusted()).toEqual({ root: 2, timestamp: 2 });
    },
  },
  {
    name: "refuses keys that the root lists but that have not signed",
    outside: "test_root_has_keys_but_not_snapshot",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      await stage.refreshes();
      for (let count = 0; count < 4; count++) repository.listKey("snapshot", makeTufKey());
      repository.root.roles["snapshot"]!.threshold = 5;
      repository.publish("root", "snapshot", "timestamp");
      await stage.refuses("trust_signature_insufficient");
      expect(stage.trusted()).toEqual({ root: 2, timestamp: 2, snapshot: 1, targets: 1 });
    },
  },
  {
    name: "does not count one key several times",
    outside: "test_duplicate_keys",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      const key = repository.addKey("snapshot");
      repository.root.roles["snapshot"]!.keyids.push(...Array.from({ length: 8 }, () => key.keyId));
      repository.root.roles["snapshot"]!.threshold = 6;
      repository.publish("root", "snapshot", "timestamp");
      repository.edit("snapshot", ({ signatures }) => {
        for (let count = 0; count < 8; count++) signatures.push(signatures.at(-1)!);
      });
      await stage.refuses("trust_metadata_malformed");
      expect(stage.trusted()).toEqual({ root: 1 });
    },
  },
  {
    name: "does not count one key under several ids",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      const key = repository.addKey("snapshot");
      for (const digit of "abcdef") repository.addKey("snapshot", aliasOf(key, digit.repeat(64)));
      repository.root.roles["snapshot"]!.threshold = 6;
      repository.publish("root", "snapshot", "timestamp");
      await stage.refuses("trust_metadata_malformed");
      expect(stage.trusted()).toEqual({ root: 1 });
    },
  },
  {
    name: "refuses metadata with two signatures of one key",
    outside: "test_duplicate_sig_keyids",
    run: async (stage) => {
      await stage.starts();
      stage.repository.edit("snapshot", ({ signatures }) => void signatures.push(signatures[0]!));
      await stage.refuses("trust_metadata_malformed");
      expect(stage.trusted()).toEqual({ root: 1, timestamp: 1 });
    },
  },
  ...KEY_TYPES,
  {
    name: "accepts metadata with a bad signature beside enough good ones",
    outside: "test_invalid_sig_in_valid_metadata",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      const first = repository.signers.get("timestamp")![0]!;
      const stale = first.sign(Buffer.from("another text"));
      repository.addKey("timestamp");
      repository.publish("root");
      for (const sig of [stale, ""]) {
        repository.publish("timestamp");
        repository.edit("timestamp", ({ signatures }) => {
          const own = signatures.find((each) => (each as { keyid: string }).keyid === first.keyId);
          Object.assign(own as object, { sig });
        });
        await stage.refreshes();
      }
      expect(stage.trusted()).toMatchObject({ root: 2, timestamp: 3 });
    },
  },
  {
    name: "takes no key for a role because it is a key of another one",
    run: async (stage) => {
      const { repository } = stage;
      await stage.starts();
      repository.signers.set("targets", [
        ...repository.signers.get("timestamp")!,
        ...repository.signers.get("snapshot")!,
      ]);
      repository.publish("targets", "snapshot", "timestamp");
      await stage.refuses("trust_signature_insufficient");
      expect(stage.trusted()).toEqual({ root: 1, timestamp: 2, snapshot: 2 });
    },
  },
];
