import { spawn } from "node:child_process";
import { FieldloopError, type TrustKey } from "@fieldloop/protocol";
import { SERVER_LIMITS } from "../limits.js";
import type { Signer } from "./signer.js";

/** How a program writes the signature on its standard output. */
export const SIGNATURE_ENCODINGS = ["raw", "hex", "base64"] as const;
export type SignatureEncoding = (typeof SIGNATURE_ENCODINGS)[number];

export interface CommandSignerOptions {
  readonly keyId: string;
  readonly key: TrustKey;
  /** Program and arguments, run without a shell. */
  readonly command: readonly string[];
  readonly encoding: SignatureEncoding;
  readonly timeoutMs?: number;
}

/** A key that another program holds (HSM, KMS, smart card): it gets the bytes on standard input and answers with the signature. */
export class CommandSigner implements Signer {
  readonly keyId: string;
  readonly key: TrustKey;
  readonly #options: CommandSignerOptions;

  constructor(options: CommandSignerOptions) {
    this.keyId = options.keyId;
    this.key = options.key;
    this.#options = options;
  }

  async sign(bytes: Uint8Array): Promise<string> {
    const output = await this.#run(bytes);
    switch (this.#options.encoding) {
      case "raw":
        return output.toString("hex");
      case "hex":
        return output.toString("utf8").trim().toLowerCase();
      case "base64":
        return Buffer.from(output.toString("utf8").trim(), "base64").toString("hex");
    }
  }

  #run(bytes: Uint8Array): Promise<Buffer> {
    const [program = "", ...parameters] = this.#options.command;
    const timeout = this.#options.timeoutMs ?? SERVER_LIMITS.trustSignCommandTimeoutMs;
    return new Promise((resolve, reject) => {
      const fail = (reason: string, cause?: unknown): void =>
        reject(
          new FieldloopError(
            "trust_key_unavailable",
            `Sign with "${this.keyId}" by "${program}": ${reason}`,
            {
              cause,
            },
          ),
        );
      const child = spawn(program, parameters, {
        stdio: ["pipe", "pipe", "pipe"],
        timeout,
        windowsHide: true,
      });
      const output = new Collected();
      const complaint = new Collected();
      child.stdout.on("data", (chunk: Buffer) => output.add(chunk));
      child.stderr.on("data", (chunk: Buffer) => complaint.add(chunk));
      child.on("error", (error) => fail(error.message, error));
      child.on("close", (code, signal) => {
        if (code === 0 && !output.overflowed) return resolve(output.bytes);
        if (output.overflowed)
          return fail(`more than ${SERVER_LIMITS.trustSignCommandOutputBytesMax} bytes came`);
        const said = complaint.bytes.toString("utf8").trim().slice(0, 300);
        fail(`it ended with ${code ?? signal}${said === "" ? "" : `: ${said}`}`);
      });
      // A program that ends before it has read everything says why by its exit code.
      child.stdin.on("error", () => undefined);
      child.stdin.end(bytes);
    });
  }
}

/** Output up to a limit; what is beyond it is dropped. */
class Collected {
  readonly #chunks: Buffer[] = [];
  #length = 0;

  add(chunk: Buffer): void {
    this.#length += chunk.length;
    if (!this.overflowed) this.#chunks.push(chunk);
  }

  get overflowed(): boolean {
    return this.#length > SERVER_LIMITS.trustSignCommandOutputBytesMax;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}
