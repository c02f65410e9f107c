import { createHash } from "node:crypto";
import { FieldloopError, decodeMessage, type SampleMessage, type SampleMetadata } from "@fieldloop/protocol";
import type { Database } from "../../store/database.js";
import type { SamplePart } from "../../store/samples.js";
import type { CommitEffects, IngestStores, Origin } from "../context.js";

export function decodeSample(payload: Uint8Array): SampleMessage {
  return decodeMessage("sample", payload);
}

/** Before the unit of work: a sample of one part goes to the blob store without holding up the database. */
export async function storeWholeSample(stores: IngestStores, message: SampleMessage): Promise<void> {
  if (message.parts === 1 && message.metadata) await storePayload(stores, message.metadata, message.payload);
}

/**
 * The parts of a sample follow each other in its stream, so a device has at most one that is unfinished: the first part of another
 * one means that the rest of the one before was evicted on the device.
 */
export async function applySample(
  tx: Database,
  stores: IngestStores,
  origin: Origin,
  message: SampleMessage,
  effects: CommitEffects,
): Promise<void> {
  const { device, received } = origin;
  const { sample, part, parts, payload } = message;
  if (parts === 1) return finish(tx, stores, origin, sample, message.metadata!, effects);
  if (part === 0) await stores.samples.deleteOldParts(tx, device, Number.MAX_SAFE_INTEGER);
  else await refuseOrphan(tx, stores, device, message);
  await stores.samples.putPart(
    tx,
    device,
    sample,
    { part, parts, metadata: message.metadata, payload },
    received,
  );
  if (part + 1 < parts) return;
  const all = await stores.samples.parts(tx, device, sample);
  const metadata = wholeMetadata(sample, all, parts);
  await storePayload(stores, metadata, Buffer.concat(all.map((one) => one.payload)));
  await stores.samples.deleteParts(tx, device, sample);
  await finish(tx, stores, origin, sample, metadata, effects);
}

/** A part without those before it can never become whole; kept, such parts would fill the disk. */
async function refuseOrphan(
  tx: Database,
  stores: IngestStores,
  device: string,
  { sample, part, parts }: SampleMessage,
): Promise<void> {
  const before = await stores.samples.partCount(tx, device, sample, parts);
  if (before === part) return;
  throw new FieldloopError(
    "message_schema",
    `Store sample: part ${part} of "${sample}" came with ${before} of the ${part} parts before it`,
  );
}

async function finish(
  tx: Database,
  stores: IngestStores,
  { device, received }: Origin,
  sample: string,
  metadata: SampleMetadata,
  effects: CommitEffects,
): Promise<void> {
  if (!(await stores.samples.insert(tx, { sample, device, received, metadata }))) {
    throw new FieldloopError("already_exists", `Store sample: "${sample}" exists already`);
  }
  effects.live({ type: "sample", id: sample, device });
}

function wholeMetadata(sample: string, all: readonly SamplePart[], parts: number): SampleMetadata {
  const metadata = all[0]?.metadata;
  if (all.length !== parts || !metadata) {
    throw new FieldloopError(
      "message_schema",
      `Store sample: "${sample}" has ${all.length} of its ${parts} parts`,
    );
  }
  return metadata;
}

async function storePayload(
  stores: IngestStores,
  metadata: SampleMetadata,
  payload: Uint8Array,
): Promise<void> {
  const sha256 = createHash("sha256").update(payload).digest("hex");
  if (payload.length !== metadata.bytes || sha256 !== metadata.sha256) {
    throw new FieldloopError(
      "message_schema",
      `Store sample: ${payload.length} bytes with hash "${sha256}", announced were ${metadata.bytes} with "${metadata.sha256}"`,
    );
  }
  await stores.blobs.put(payload, { sha256, bytesMax: payload.length });
}
