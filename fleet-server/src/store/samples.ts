import type { SampleMetadata } from "@fieldloop/protocol";
import { sql, type SQL } from "drizzle-orm";
import type { Database, Migration } from "./database.js";

export const SAMPLES_MIGRATION: Migration = {
  name: "0007_samples",
  statements: (types) => [
    `create table samples (
      sample text primary key, device text not null, prediction_boot ${types.bigint} not null, n ${types.bigint} not null,
      time ${types.bigint} not null, received ${types.bigint} not null, model text not null, version integer not null,
      package_sha256 text not null, variant text not null, stratum text not null, probability ${types.real} not null,
      worth ${types.real} not null, class integer not null, label text not null, confidence ${types.real} not null,
      latency_ms ${types.real} not null, signals text not null, boxes text, embedding ${types.blob}, media_type text not null,
      bytes integer not null, sha256 text not null, source text not null, status text not null default 'new')`,
    "create index samples_worth on samples (model, worth)",
    "create index samples_received on samples (received)",
    "create index samples_device on samples (device, time)",
    "create index samples_prediction on samples (device, prediction_boot, n)",
    `create table sample_parts (
      device text not null, sample text not null, part integer not null, parts integer not null, metadata text,
      embedding ${types.blob}, payload ${types.blob} not null, received ${types.bigint} not null, primary key (device, sample, part))`,
  ],
};

/** A whole sample, its payload in the blob store under `metadata.sha256`. */
export interface ReceivedSample {
  readonly sample: string;
  readonly device: string;
  readonly received: number;
  readonly metadata: SampleMetadata;
}

export interface SamplePart {
  readonly part: number;
  readonly parts: number;
  readonly metadata: SampleMetadata | undefined;
  readonly payload: Uint8Array;
}

interface PartRow {
  part: number;
  parts: number;
  metadata: string | null;
  embedding: Uint8Array | null;
  payload: Uint8Array;
}

const PART: SQL = sql.raw("part, parts, metadata, embedding, payload");

/** What ingest writes about samples; what people do with them is in the stores of labels and failures. */
export class SampleIngestStore {
  /** @returns false where this sample is known already. */
  async insert(tx: Database, { sample, device, received, metadata }: ReceivedSample): Promise<boolean> {
    const shadow = metadata.context?.shadow;
    const inserted = await tx.run(sql`insert into samples
      (sample, device, prediction_boot, n, time, received, model, version, package_sha256, variant, stratum, probability, worth, class,
       label, confidence, latency_ms, signals, boxes, embedding, media_type, bytes, sha256, source,
       shadow_deployment, shadow_version, shadow_label, shadow_confidence, disagreement)
      values (${sample}, ${device}, ${metadata.predictionBoot}, ${metadata.n}, ${metadata.time}, ${received}, ${metadata.model},
        ${metadata.version}, ${metadata.packageSha256}, ${metadata.variant}, ${metadata.stratum}, ${metadata.probability},
        ${metadata.worth}, ${metadata.class}, ${metadata.label}, ${metadata.confidence}, ${metadata.latencyMs},
        ${JSON.stringify(metadata.signals)}, ${metadata.boxes ? JSON.stringify(metadata.boxes) : null},
        ${metadata.embedding ? bytesOf(metadata.embedding) : null}, ${metadata.mediaType}, ${metadata.bytes}, ${metadata.sha256},
        ${metadata.source}, ${shadow?.deployment ?? null}, ${shadow?.version ?? null}, ${shadow?.label ?? null},
        ${shadow?.confidence ?? null}, ${metadata.signals.disagreement ?? null}) on conflict do nothing`);
    return inserted === 1;
  }

  async putPart(
    tx: Database,
    device: string,
    sample: string,
    part: SamplePart,
    received: number,
  ): Promise<void> {
    const { embedding, ...metadata } = part.metadata ?? {};
    await tx.run(sql`insert into sample_parts (device, sample, part, parts, metadata, embedding, payload, received)
      values (${device}, ${sample}, ${part.part}, ${part.parts}, ${part.metadata ? JSON.stringify(metadata) : null},
        ${embedding ? bytesOf(embedding) : null}, ${part.payload}, ${received}) on conflict do nothing`);
  }

  async parts(tx: Database, device: string, sample: string): Promise<SamplePart[]> {
    const rows = await tx.all<PartRow>(
      sql`select ${PART} from sample_parts where device = ${device} and sample = ${sample} order by part`,
    );
    return rows.map((row) => ({
      part: row.part,
      parts: row.parts,
      payload: row.payload,
      metadata: row.metadata === null ? undefined : withEmbedding(row.metadata, row.embedding),
    }));
  }

  /** How many parts are there of a sample that was announced with so many. */
  async partCount(tx: Database, device: string, sample: string, parts: number): Promise<number> {
    const row = await tx.get<{ count: number }>(
      sql`select count(*) as count from sample_parts where device = ${device} and sample = ${sample} and parts = ${parts}`,
    );
    return row!.count;
  }

  async deleteParts(tx: Database, device: string, sample: string): Promise<void> {
    await tx.run(sql`delete from sample_parts where device = ${device} and sample = ${sample}`);
  }

  /** Samples of which parts arrived but not all. */
  async unfinished(tx: Database, device: string): Promise<number> {
    const row = await tx.get<{ count: number }>(
      sql`select count(distinct sample) as count from sample_parts where device = ${device}`,
    );
    return row!.count;
  }

  /** Gives up on the parts of a device's samples that stopped coming. */
  async deleteOldParts(tx: Database, device: string, before: number): Promise<number> {
    return tx.run(sql`delete from sample_parts where device = ${device} and received < ${before}`);
  }
}

/** Float32, little-endian. */
export function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** The inverse of {@link bytesOf}; copied, since stored bytes may begin at any address. */
export function floatsOf(bytes: Uint8Array): Float32Array<ArrayBuffer> {
  return new Float32Array(Uint8Array.from(bytes).buffer);
}

function withEmbedding(json: string, embedding: Uint8Array | null): SampleMetadata {
  const metadata = JSON.parse(json) as SampleMetadata;
  return embedding ? { ...metadata, embedding: floatsOf(embedding) } : metadata;
}
