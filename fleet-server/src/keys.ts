/** Keys and signatures without a server: what an offline machine needs, and nothing that opens a database or a socket. */
export {
  commandKeyFile,
  createKeyFile,
  needsPassphrase,
  openKeyFile,
  parseKeyFile,
  publicKeyFile,
  type KeyFile,
} from "./trust/key-file.js";
export { SIGNATURE_ENCODINGS, type SignatureEncoding } from "./trust/command-signer.js";
export { describeRequest } from "./trust/describe.js";
export { readTrustKey, trustKeyId } from "./trust/keys.js";
export { signRequest } from "./trust/request.js";
export type { Signer } from "./trust/signer.js";
