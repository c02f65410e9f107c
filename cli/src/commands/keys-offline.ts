import { randomBytes } from "node:crypto";
import { FieldloopError, signingRequestSchema } from "@fieldloop/protocol";
import {
  commandKeyFile,
  createKeyFile,
  describeRequest,
  needsPassphrase,
  openKeyFile,
  parseKeyFile,
  publicKeyFile,
  readTrustKey,
  SIGNATURE_ENCODINGS,
  signRequest,
  type KeyFile,
  type Signer,
} from "@fieldloop/fleet-server/keys";
import { note, printJson } from "../output.js";
import { confirm, findPassphrase, readForm, readText, writeNew } from "./keys-files.js";

interface InitOptions {
  out: string;
  passphraseFile?: string;
  plain?: boolean;
  publicKey?: string;
  signCommand?: string[];
  encoding: string;
  json?: boolean;
}

/** `fieldloop keys init`. */
export async function initKey(options: InitOptions): Promise<void> {
  const file = options.signCommand || options.publicKey ? await commandKey(options) : await ownKey(options);
  await writeNew(options.out, `${JSON.stringify(file, null, 2)}\n`, 0o600);
  const publicPath = `${options.out}.pub.json`;
  await writeNew(publicPath, `${JSON.stringify(publicKeyFile(file), null, 2)}\n`);
  if (options.json) return printJson({ keyId: file.keyId, private: options.out, public: publicPath });
  note(`${options.out} is the private key: it stays on this machine`);
  note(`${publicPath} is for the server: fieldloop keys add|rotate ROLE --key ${publicPath}`);
  process.stdout.write(`${file.keyId}\n`);
}

async function ownKey(options: InitOptions): Promise<KeyFile> {
  const passphrase = options.plain
    ? undefined
    : await findPassphrase(options.passphraseFile, "passphrase of the new key", true);
  if (passphrase === undefined && !options.plain) {
    throw new FieldloopError(
      "invalid_argument",
      "Make key: give --passphrase-file or FIELDLOOP_KEY_PASSPHRASE, or say --plain",
    );
  }
  return createKeyFile({
    randomBytes: (length) => new Uint8Array(randomBytes(length)),
    ...(passphrase === undefined ? {} : { passphrase }),
  });
}

async function commandKey({ publicKey, signCommand, encoding }: InitOptions): Promise<KeyFile> {
  if (!publicKey || !signCommand) {
    throw new FieldloopError("invalid_argument", "Make key: --public-key and --sign-command belong together");
  }
  const named = SIGNATURE_ENCODINGS.find((candidate) => candidate === encoding);
  if (!named) {
    throw new FieldloopError(
      "invalid_argument",
      `Make key: the encoding "${encoding}" is none of ${SIGNATURE_ENCODINGS.join(", ")}`,
    );
  }
  const key = readTrustKey(await readText(publicKey, "public key"), publicKey);
  return commandKeyFile(key, { kind: "command", command: signCommand, encoding: named });
}

interface SignOptions {
  key: string[];
  out: string;
  passphraseFile?: string;
  yes?: boolean;
  json?: boolean;
}

/** `fieldloop keys sign`: what is shown and what is signed come from the same bytes. */
export async function signFile(path: string, options: SignOptions): Promise<void> {
  const request = await readForm(path, signingRequestSchema, "signing request");
  const lines = describeRequest(request);
  note(
    `${request.request}, asked for by ${JSON.stringify(request.createdBy)} at ${new Date(request.created).toISOString()}:`,
  );
  for (const line of lines) note(line);
  const signers: Signer[] = [];
  for (const file of options.key) signers.push(await openKey(file, options));
  if (!options.yes && !(await confirm("Sign all of it?"))) {
    throw new FieldloopError(
      "cancelled",
      "Sign: not confirmed; nothing was written (say --yes without a terminal)",
    );
  }
  const signatures = await signRequest(request, signers);
  await writeNew(options.out, `${JSON.stringify(signatures, null, 2)}\n`);
  if (options.json) return printJson({ ...signatures, changes: lines });
  note(`${options.out} has ${signatures.signatures.length} signatures: fieldloop keys import ${options.out}`);
}

async function openKey(path: string, options: SignOptions): Promise<Signer> {
  const file = parseKeyFile(await readText(path, "key"), path);
  const passphrase = needsPassphrase(file)
    ? await findPassphrase(options.passphraseFile, `passphrase of ${path}`, false)
    : undefined;
  return openKeyFile(file, passphrase);
}
