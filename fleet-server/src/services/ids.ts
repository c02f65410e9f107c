/** Makes ids such as `rol_5f0k…`; random ones in the server, counted ones in tests. */
export type NewId = (prefix: string) => string;

const ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz";
const LENGTH = 16;

/** Ids of 16 base-36 digits (82 bits). */
export function randomIds(randomBytes: (length: number) => Uint8Array): NewId {
  return (prefix) => {
    let text = "";
    // 252 is the largest multiple of 36 in a byte: what is above it would favour the first digits.
    while (text.length < LENGTH) {
      for (const byte of randomBytes(LENGTH))
        if (byte < 252 && text.length < LENGTH) text += ALPHABET[byte % 36];
    }
    return `${prefix}_${text}`;
  };
}
