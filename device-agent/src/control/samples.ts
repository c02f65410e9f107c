import { createHash } from "node:crypto";
import { encodeMessage, LIMITS, type SampleMetadata } from "@fieldloop/protocol";
import type { Spool } from "./spool/spool.js";

/** Samples taken by chance keep estimates unbiased: they outlive all but the worthiest when space runs out. */
const RANDOM_WORTH = 0.9;

/** Cuts a sample into parts and appends them to the spool as one group. False where there was no room for it. */
export function appendSample(
  spool: Spool,
  device: string,
  boot: number,
  metadata: SampleMetadata,
  payload: Uint8Array,
): boolean {
  const parts = Math.ceil(payload.length / LIMITS.samplePartBytesMax);
  const sample = sampleId(device, metadata);
  const worth = metadata.stratum === "worth" ? metadata.worth : Math.max(metadata.worth, RANDOM_WORTH);
  return spool.appendGroup("sample", { worth, protected: false }, parts, (seq, part) =>
    encodeMessage("sample", {
      boot,
      seq,
      prev: 0,
      sample,
      part,
      parts,
      ...(part === 0 ? { metadata } : {}),
      payload: payload.slice(part * LIMITS.samplePartBytesMax, (part + 1) * LIMITS.samplePartBytesMax),
    }),
  );
}

/** The same sample has the same id, however often it is made. */
function sampleId(device: string, metadata: SampleMetadata): string {
  const name = `${device}/${metadata.predictionBoot}-${metadata.n}/${metadata.stratum}`;
  return `smp_${createHash("sha256").update(name).digest("hex").slice(0, 20)}`;
}
