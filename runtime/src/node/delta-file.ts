import { createHash } from "node:crypto";
import { open, type FileHandle } from "node:fs/promises";
import { FieldloopError } from "@fieldloop/protocol";
import { readDelta, type DeltaSink } from "../delta/apply.js";
import type { DeltaHeader } from "../delta/header.js";
import { makeDelta } from "../delta/make.js";

/** Lower-case hexadecimal SHA-256. */
function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** As `makeDelta`, with Node's SHA-256. */
export function makeDeltaOf(
  base: Uint8Array,
  target: Uint8Array,
  options: { readonly bytesMax?: number; readonly signal?: AbortSignal } = {},
): Uint8Array | undefined {
  return makeDelta(base, target, { ...options, sha256: sha256Of });
}

/**
 * Rebuilds a file from one on disk and a delta, and syncs it. What is written is the target byte for byte, or an error is thrown and what
 * lies at `targetPath` is to be removed.
 * @throws as {@link applyDeltaTo}
 */
export async function applyDeltaFile(
  basePath: string,
  delta: Uint8Array,
  targetPath: string,
  options: { readonly signal?: AbortSignal } = {},
): Promise<DeltaHeader> {
  const target = await open(targetPath, "w", 0o600);
  try {
    const header = await applyDeltaTo(basePath, delta, (chunk) => writeFully(target, chunk), options);
    await target.sync();
    return header;
  } finally {
    await target.close();
  }
}

/**
 * The same, to wherever `sink` puts it. Memory does not grow with the files; the thread is given up after every chunk, whose memory is used
 * again. Where it resolves, `sink` had the target byte for byte; where it does not, `sink` had anything.
 * @throws FieldloopError `delta_malformed`, `delta_base_mismatch`; what `sink` throws
 */
export async function applyDeltaTo(
  basePath: string,
  delta: Uint8Array,
  sink: DeltaSink,
  options: { readonly signal?: AbortSignal } = {},
): Promise<DeltaHeader> {
  const base = await open(basePath, "r");
  try {
    const { size } = await base.stat();
    const hash = createHash("sha256");
    const header = await readDelta(
      delta,
      { bytes: size, read: (from, into) => readFully(base, from, into) },
      (chunk) => {
        hash.update(chunk);
        return sink(chunk);
      },
      options,
    );
    if (hash.digest("hex") !== header.targetSha256) await blame(base, header);
    return header;
  } finally {
    await base.close();
  }
}

/** The target has another hash than the delta says: the base's own hash tells which of the two is wrong. */
async function blame(base: FileHandle, header: DeltaHeader): Promise<never> {
  const hash = createHash("sha256");
  for await (const chunk of base.createReadStream({ start: 0, autoClose: false }))
    hash.update(chunk as Buffer);
  if (hash.digest("hex") !== header.baseSha256) {
    throw new FieldloopError(
      "delta_base_mismatch",
      "Apply delta: the base has another hash than it was made for",
    );
  }
  throw new FieldloopError("delta_malformed", "Apply delta: the rebuilt file has another hash than it says");
}

async function readFully(file: FileHandle, from: number, into: Uint8Array): Promise<void> {
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await file.read(into, done, into.length - done, from + done);
    if (bytesRead === 0)
      throw new FieldloopError("delta_base_mismatch", "Apply delta: the base became shorter");
    done += bytesRead;
  }
}

async function writeFully(file: FileHandle, chunk: Uint8Array): Promise<void> {
  let done = 0;
  while (done < chunk.length) {
    const { bytesWritten } = await file.write(chunk, done, chunk.length - done);
    done += bytesWritten;
  }
}
