import { chmod, mkdtemp, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SecretBox } from "./secret-box.js";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fieldloop-secrets-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function openBox(): Promise<SecretBox> {
  const box = new SecretBox({ folder, now: () => 1_000 });
  await box.open();
  return box;
}
const keyFiles = async (): Promise<string[]> => (await readdir(folder)).map((name) => join(folder, name));

describe("a secret at rest", () => {
  it("opens after a restart, tells nothing, and never looks the same twice", async () => {
    const box = await openBox();
    const sealed = box.seal("whsec_äx", "webhook 1");
    expect(sealed).not.toContain("whsec");
    expect(box.seal("whsec_äx", "webhook 1")).not.toBe(sealed);
    expect((await openBox()).unseal(sealed, "webhook 1")).toBe("whsec_äx");
    const [file] = await keyFiles();
    if (process.platform !== "win32") expect((await stat(file!)).mode & 0o777).toBe(0o600);
  });

  it("does not open in another place, changed by a bit, or cut", async () => {
    const box = await openBox();
    const sealed = box.seal("whsec_x", "webhook 1");
    const [prefix, id, nonce, body] = sealed.split(".") as [string, string, string, string];
    const flip = (text: string): string => {
      const bytes = Buffer.from(text, "base64url");
      bytes[0]! ^= 1;
      return bytes.toString("base64url");
    };
    for (const [text, about] of [
      [sealed, "webhook 2"],
      [[prefix, id, nonce, flip(body)].join("."), "webhook 1"],
      [[prefix, id, flip(nonce), body].join("."), "webhook 1"],
      [[prefix, id, nonce, body.slice(0, 22)].join("."), "webhook 1"],
      [[prefix, id, "", body].join("."), "webhook 1"],
      [[prefix, id].join("."), "webhook 1"],
      ["whsec_x", "webhook 1"],
    ] as const)
      expect(() => box.unseal(text, about), text).toThrow(
        expect.objectContaining({ code: "storage_failed" }),
      );
  });

  it("opens with the keys of before after a rotation, and not once they are forgotten", async () => {
    const box = await openBox();
    const sealed = box.seal("one", "a");
    const [old] = sealed.split(".").slice(1);
    await box.rotate();
    expect([box.isCurrent(sealed), box.isCurrent(box.seal("one", "a")), box.older]).toEqual([
      false,
      true,
      [old],
    ]);
    const again = await openBox();
    expect([again.unseal(sealed, "a"), again.older]).toEqual(["one", [old]]);
    await box.forget(old!);
    expect(() => box.unseal(sealed, "a")).toThrow(expect.objectContaining({ code: "secret_key_missing" }));
    await expect(box.forget(box.seal("one", "a").split(".")[1]!)).rejects.toMatchObject({ code: "internal" });
  });

  it("says which file is missing, which is broken, and which others can read", async () => {
    const sealed = (await openBox()).seal("one", "a");
    const [file] = await keyFiles();
    const text = await readFile(file!, "utf8");
    await rm(file!);
    const id = sealed.split(".")[1]!;
    expect((await openBox()).older).toEqual([]);
    const other = await openBox();
    expect(() => other.unseal(sealed, "a")).toThrow(`${id}.key.json`);
    await writeFile(file!, text.replace(id, "0".repeat(16)), { mode: 0o600 });
    await expect(openBox()).rejects.toMatchObject({ code: "storage_failed" });
    await writeFile(file!, text.slice(0, 20));
    await expect(openBox()).rejects.toMatchObject({ code: "storage_failed" });
    await writeFile(file!, text);
    expect((await openBox()).unseal(sealed, "a")).toBe("one");
    if (process.platform === "win32") return;
    await chmod(file!, 0o644);
    await expect(openBox()).rejects.toMatchObject({ code: "storage_failed" });
  });
});
