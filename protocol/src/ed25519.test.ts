import { describe, expect, it } from "vitest";
import { ed25519, portableEd25519 } from "./ed25519.js";
import { fromHex, toHex } from "./signing.js";

/** RFC 8032 section 7.1: secret key, public key, message, signature. */
const VECTORS = [
  [
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "",
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
  ],
  [
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    "72",
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
  ],
] as const;

describe.each([
  ["Node's own", ed25519],
  ["the portable", portableEd25519],
])("Ed25519 by %s library", (_, library) => {
  it.each(VECTORS)(
    "gives what RFC 8032 says for the secret key %s",
    (secret, publicKey, message, signature) => {
      expect(toHex(library.publicKeyOf(fromHex(secret)))).toBe(publicKey);
      expect(toHex(library.sign(fromHex(message), fromHex(secret)))).toBe(signature);
      expect(library.verify(fromHex(signature), fromHex(message), fromHex(publicKey))).toBe(true);
      expect(library.verify(fromHex(signature), fromHex(`${message}00`), fromHex(publicKey))).toBe(false);
    },
  );

  it("refuses a signature whose scalar has the order of the curve added to it, as RFC 8032 section 5.1.7 asks", () => {
    const [secret, publicKey, message] = VECTORS[1];
    const signature = library.sign(fromHex(message), fromHex(secret));
    const order = BigInt("0x1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed");
    const scalar = BigInt(`0x${toHex(signature.slice(32).reverse())}`) + order;
    signature.set(fromHex(scalar.toString(16).padStart(64, "0")).reverse(), 32);
    expect(library.verify(signature, fromHex(message), fromHex(publicKey))).toBe(false);
  });

  it("refuses a key that is no point", () => {
    const verify = (): boolean =>
      library.verify(new Uint8Array(64), new Uint8Array(1), new Uint8Array(32).fill(0xee));
    let isValid = false;
    try {
      isValid = verify();
    } catch {
      isValid = false;
    }
    expect(isValid).toBe(false);
  });
});

it("both libraries accept and refuse the same", () => {
  const message = Uint8Array.of(1, 2, 3);
  for (let round = 0; round < 50; round++) {
    const secret = Uint8Array.from({ length: 32 }, (_, at) => (round * 37 + at * 11) & 0xff);
    const publicKey = ed25519.publicKeyOf(secret);
    const signature = portableEd25519.sign(message, secret);
    expect(signature).toEqual(ed25519.sign(message, secret));
    expect(publicKey).toEqual(portableEd25519.publicKeyOf(secret));
    expect(ed25519.verify(signature, message, publicKey)).toBe(true);
    signature[round]! ^= 1;
    expect(portableEd25519.verify(signature, message, publicKey)).toBe(false);
    expect(ed25519.verify(signature, message, publicKey)).toBe(false);
  }
});
