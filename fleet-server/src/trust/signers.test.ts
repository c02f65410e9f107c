import { generateKeyPairSync, randomBytes, type KeyObject } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toFieldloopError, type TrustKey } from "@fieldloop/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CommandSigner } from "./command-signer.js";
import {
  commandKeyFile,
  createKeyFile,
  openKeyFile,
  parseKeyFile,
  publicKeyFile,
  type KeyFile,
} from "./key-file.js";
import { isSignature, readTrustKey, trustKeyId } from "./keys.js";
import { signChecked } from "./signer.js";
import { TrustKit } from "./trust.test.kit.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fieldloop-signers-"));
  await writeFile(join(folder, "sign.mjs"), SIGN_PROGRAM);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Stands for the client of an HSM: bytes in, signature out. Arguments: private key, encoding. */
const SIGN_PROGRAM = `import { constants, createPrivateKey, sign } from "node:crypto";
import { readFileSync } from "node:fs";
const key = createPrivateKey(readFileSync(process.argv[2]));
const bytes = readFileSync(0);
const digest = key.asymmetricKeyType === "ed25519" ? undefined : "sha256";
const padding = key.asymmetricKeyType === "rsa" ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 } : {};
const signature = sign(digest, bytes, { key, ...padding });
process.stdout.write(process.argv[3] === "raw" ? signature : signature.toString(process.argv[3]) + "\\n");
`;

const random = (length: number) => new Uint8Array(randomBytes(length));
const bytes = Buffer.from("what is signed");
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "nothing",
    (error: unknown) => toFieldloopError(error).code,
  );

/** A key pair as an HSM's tool would export it: the public half as PEM. */
async function hsmKey(type: "ed25519" | "ec" | "rsa"): Promise<{ key: TrustKey; path: string }> {
  const pair =
    type === "ec"
      ? generateKeyPairSync("ec", { namedCurve: "P-256" })
      : type === "rsa"
        ? generateKeyPairSync("rsa", { modulusLength: 2_048 })
        : generateKeyPairSync("ed25519");
  const path = join(folder, `${type}.pem`);
  await writeFile(path, pair.privateKey.export({ format: "pem", type: "pkcs8" }));
  return { key: readTrustKey(pair.publicKey.export({ format: "pem", type: "spki" }).toString(), type), path };
}

describe("a key file", () => {
  it("signs, plain and behind a passphrase", async () => {
    for (const passphrase of [undefined, "correct horse"]) {
      const made = await createKeyFile({
        randomBytes: random,
        cost: 2 ** 12,
        ...(passphrase === undefined ? {} : { passphrase }),
      });
      const text = JSON.stringify(made);
      const signer = await openKeyFile(parseKeyFile(text, "k"), passphrase);
      expect(isSignature(made.key, bytes, await signChecked(signer, bytes))).toBe(true);
      expect(readTrustKey(JSON.stringify(publicKeyFile(made)), "k")).toEqual(made.key);
    }
  });

  it("behind a passphrase gives nothing away without it", async () => {
    const made = await createKeyFile({ randomBytes: random, passphrase: "correct horse", cost: 2 ** 12 });
    expect(JSON.stringify(made)).not.toContain("seed");
    expect(await codeOf(openKeyFile(made, undefined))).toBe("trust_key_unavailable");
    expect(await codeOf(openKeyFile(made, "wrong horse"))).toBe("trust_key_unavailable");
    // Bound to its id: moved to another file it does not open.
    expect(await codeOf(openKeyFile({ ...made, keyId: "0".repeat(64) }, "correct horse"))).toBe(
      "trust_key_unavailable",
    );
  });

  it.each<[string, (made: KeyFile) => unknown]>([
    ["is not JSON", () => "{"],
    ["has the id of another key", (made) => ({ ...made, keyId: "0".repeat(64) })],
    ["asks for more memory than is sane", (made) => ({ ...made, secret: { ...made.secret, cost: 2 ** 30 } })],
    ["is the public half", (made) => publicKeyFile(made)],
  ])("that %s is refused", async (_, spoil) => {
    const made = await createKeyFile({ randomBytes: random, passphrase: "x", cost: 2 ** 10 });
    const spoilt = spoil(made);
    const text = typeof spoilt === "string" ? spoilt : JSON.stringify(spoilt);
    expect(() => parseKeyFile(text, "k")).toThrow(expect.objectContaining({ code: "trust_key_unavailable" }));
  });

  it("whose halves are of different keys is refused", async () => {
    const [one, other] = [
      await createKeyFile({ randomBytes: random }),
      await createKeyFile({ randomBytes: random }),
    ];
    expect(await codeOf(openKeyFile({ ...one, secret: other.secret }, undefined))).toBe(
      "trust_key_unavailable",
    );
  });
});

describe("a program that signs", () => {
  it.each([
    ["ed25519", "raw"],
    ["ec", "hex"],
    ["rsa", "base64"],
  ] as const)("with %s answers in %s", async (type, encoding) => {
    const { key, path } = await hsmKey(type);
    const command = [process.execPath, join(folder, "sign.mjs"), path, encoding];
    const file = commandKeyFile(key, { kind: "command", command, encoding });
    const signer = await openKeyFile(parseKeyFile(JSON.stringify(file), "k"), undefined);
    expect(isSignature(key, bytes, await signChecked(signer, bytes))).toBe(true);
  });

  it.each<[string, string[], RegExp]>([
    ["is not there", ["/nonexistent/sign"], /ENOENT/],
    ["fails", [process.execPath, "-e", "console.error('no card'); process.exit(3)"], /ended with 3: no card/],
    [
      "answers with something else",
      [process.execPath, "-e", "process.stdin.on('end', () => console.log('ok')).resume()"],
      /not a signature/,
    ],
    ["never ends", [process.execPath, "-e", "setInterval(() => 0, 1000)"], /SIGTERM/],
    [
      "floods",
      [process.execPath, "-e", "process.stdout.write(Buffer.alloc(1 << 20))"],
      /more than 65536 bytes/,
    ],
  ])("and %s is told apart", async (_, command, message) => {
    const { key } = await hsmKey("ed25519");
    const signer = new CommandSigner({
      keyId: trustKeyId(key),
      key,
      command,
      encoding: "raw",
      timeoutMs: 2_000,
    });
    await expect(signChecked(signer, bytes)).rejects.toThrow(message);
    expect(await codeOf(signChecked(signer, bytes))).toBe("trust_key_unavailable");
  });
});

describe("a public key", () => {
  it.each<[string, () => string]>([
    ["of another curve", () => pem(generateKeyPairSync("ec", { namedCurve: "P-384" }).publicKey)],
    ["that is too short", () => pem(generateKeyPairSync("rsa", { modulusLength: 1_024 }).publicKey)],
    [
      "that is a private one",
      () => generateKeyPairSync("ed25519").privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
    ],
    ["that is no key", () => "hello"],
    ["that is broken PEM", () => "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"],
  ])("%s is refused", (_, text) => {
    expect(() => readTrustKey(text(), "k")).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  });
});

describe("the key ring", () => {
  it("uses a program's key that an administrator puts there, and clients accept it", async () => {
    const kit = await TrustKit.open();
    try {
      for (const [role, type] of [
        ["timestamp", "ec"],
        ["snapshot", "rsa"],
      ] as const) {
        const { key, path } = await hsmKey(type);
        const command = [process.execPath, join(folder, "sign.mjs"), path, "raw"];
        const file = join(kit.folder, "trust", "keys", `hsm-${type}.key.json`);
        await writeFile(
          file,
          JSON.stringify(commandKeyFile(key, { kind: "command", command, encoding: "raw" })),
          {
            mode: 0o600,
          },
        );
        const change = await kit.ceremony.changeKeys({ role, add: [key], revokeAll: true }, "ann");
        expect(change.state).toBe("in_force");
        // The server deletes what it made itself, never what somebody put there.
        expect(await readFile(file, "utf8")).toContain(type);
      }
      await kit.publish("parts", 1);
      expect(await (await kit.client()).package("parts", 1)).toMatchObject({ version: 1 });
      // The card is pulled: what is published stays so, and a version waits.
      await rm(join(folder, "ec.pem"));
      await kit.publish("parts", 2);
      expect((await kit.trust.view()).awaiting).toEqual([{ model: "parts", version: 2 }]);
      expect(await (await kit.client()).package("parts", 1)).toMatchObject({ version: 1 });
    } finally {
      await kit.close();
    }
  });

  it("tells of files that it cannot use, and goes on without them", async () => {
    const kit = await TrustKit.open();
    try {
      const keys = join(kit.folder, "trust", "keys");
      await writeFile(join(keys, "broken.key.json"), "{", { mode: 0o600 });
      await writeFile(join(keys, "open.key.json"), "{}");
      await chmod(join(keys, "open.key.json"), 0o644);
      await kit.publish("parts", 1);
      expect((await kit.trust.view()).warnings.map(({ title }) => title)).toEqual([
        expect.stringContaining("broken.key.json"),
        expect.stringContaining("mode 644"),
      ]);
      expect(await (await kit.client()).package("parts", 1)).toMatchObject({ version: 1 });
    } finally {
      await kit.close();
    }
  });
});

function pem(key: KeyObject): string {
  return key.export({ format: "pem", type: "spki" }).toString();
}
