import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { AGENT_LIMITS } from "@fieldloop/device-agent";
import Sqlite from "better-sqlite3";
import type { AckRecorder } from "./acks.js";

interface SegmentRow {
  readonly device: string;
  readonly boot: number;
  readonly seq: number;
  readonly first_n: number;
  readonly count: number;
}
interface SampleRow {
  readonly sample: string;
  readonly device: string;
  readonly prediction_boot: number;
  readonly n: number;
  readonly bytes: number;
  readonly sha256: string;
}

/** What the server's database says about one device. */
export interface DeviceLedger {
  readonly device: string;
  /** Stored predictions of each boot. */
  readonly predictions: ReadonlyMap<number, number>;
  readonly samples: ReadonlyMap<number, number>;
}

export interface Ledger {
  readonly devices: readonly DeviceLedger[];
  /** One line for each thing that is not as it must be. */
  readonly faults: readonly string[];
  readonly segments: number;
  readonly predictions: number;
  readonly samples: number;
  readonly promises: number;
}

/**
 * Reads the database and the blobs of a stopped server and holds them to what a fleet must never break: within every boot the
 * numbers of predictions and of messages run on from the first to the last without a gap or an overlap; everything that a
 * device was told to be durable is there; every sample is there once, and its bytes have their hash; nothing was set aside.
 * Devices with several lanes (`withLanes`) number their predictions by blocks, one lane each: there a gap may be what is left of one.
 */
export function readLedger(
  dataDir: string,
  acks: AckRecorder,
  withLanes: ReadonlySet<string> = new Set(),
): Ledger {
  const database = new Sqlite(join(dataDir, "fieldloop.db"), { readonly: true });
  try {
    const segments = database
      .prepare("select device, boot, seq, first_n, count from prediction_segments order by device, boot, seq")
      .all() as SegmentRow[];
    const samples = database
      .prepare(
        "select sample, device, prediction_boot, n, bytes, sha256 from samples order by device, prediction_boot, n",
      )
      .all() as SampleRow[];
    const letters = database
      .prepare("select device, kind, code, message from dead_letters")
      .all() as object[];
    const cursors = database.prepare("select device, stream, boot, seq from cursors").all() as Cursor[];
    const faults = [
      ...messageFaults(segments),
      ...numberFaults(segments, withLanes),
      ...sampleFaults(samples, dataDir),
      ...promiseFaults(acks, segments, cursors),
      ...letters.map((letter) => `set aside: ${JSON.stringify(letter)}`),
    ];
    return {
      devices: byDevice(segments, samples),
      faults,
      segments: segments.length,
      predictions: segments.reduce((sum, { count }) => sum + count, 0),
      samples: samples.length,
      promises: acks.promises.length,
    };
  } finally {
    database.close();
  }
}

interface Cursor {
  readonly device: string;
  readonly stream: string;
  readonly boot: number;
  readonly seq: number;
}

/** `segments` by device, boot and message. */
function messageFaults(segments: readonly SegmentRow[]): string[] {
  const faults: string[] = [];
  let last: SegmentRow | undefined;
  for (const row of segments) {
    const wanted = last !== undefined && isSameBoot(last, row) ? last.seq + 1 : 1;
    if (row.seq !== wanted) faults.push(`${nameOf(row)}: message ${row.seq} is stored after ${wanted - 1}`);
    last = row;
  }
  return faults;
}

/** Messages of two lanes come as they like: their numbers are looked at in the order of the numbers. */
function numberFaults(segments: readonly SegmentRow[], withLanes: ReadonlySet<string>): string[] {
  const faults: string[] = [];
  const byNumber = [...segments].sort(
    (a, b) => a.device.localeCompare(b.device) || a.boot - b.boot || a.first_n - b.first_n,
  );
  let last: SegmentRow | undefined;
  for (const row of byNumber) {
    const wanted = last !== undefined && isSameBoot(last, row) ? last.first_n + last.count : 0;
    const isLeftOver =
      withLanes.has(row.device) && row.first_n > wanted && row.first_n % AGENT_LIMITS.predictionBlock === 0;
    if (row.first_n !== wanted && !isLeftOver)
      faults.push(`${nameOf(row)}: prediction ${row.first_n} is stored where ${wanted} belongs`);
    last = row;
  }
  return faults;
}

function isSameBoot(a: SegmentRow, b: SegmentRow): boolean {
  return a.device === b.device && a.boot === b.boot;
}

function nameOf({ device, boot }: SegmentRow): string {
  return `${device}/${boot}`;
}

function sampleFaults(samples: readonly SampleRow[], dataDir: string): string[] {
  const faults: string[] = [];
  const seen = new Set<string>();
  for (const { sample, device, prediction_boot, n, bytes, sha256 } of samples) {
    const prediction = `${device}/${prediction_boot}-${n}`;
    if (seen.has(prediction)) faults.push(`${prediction} has two samples, the second is ${sample}`);
    seen.add(prediction);
    const content = readBlob(dataDir, sha256);
    if (!content) faults.push(`${sample}: its blob ${sha256} is missing`);
    else if (content.length !== bytes || createHash("sha256").update(content).digest("hex") !== sha256) {
      faults.push(`${sample}: its blob has other bytes than its hash says`);
    }
  }
  return faults;
}

/** An acknowledgement that went over the wire is a promise: the device has deleted its copy. */
function promiseFaults(
  acks: AckRecorder,
  segments: readonly SegmentRow[],
  cursors: readonly Cursor[],
): string[] {
  const stored = new Map<string, number>();
  for (const { device, boot, seq } of segments) stored.set(`${device} ${boot}`, seq);
  return acks.promises.flatMap(({ device, stream, boot, seq }) => {
    const cursor = cursors.find((candidate) => candidate.device === device && candidate.stream === stream);
    const isBehind = !cursor || cursor.boot < boot || (cursor.boot === boot && cursor.seq < seq);
    const isLost = stream === "predictions" && (stored.get(`${device} ${boot}`) ?? 0) < seq;
    return isBehind || isLost
      ? [`${device}/${boot} was told that ${stream} ${seq} is durable, and it is not`]
      : [];
  });
}

function byDevice(segments: readonly SegmentRow[], samples: readonly SampleRow[]): DeviceLedger[] {
  const devices = new Map<string, { predictions: Map<number, number>; samples: Map<number, number> }>();
  const of = (device: string) => {
    let entry = devices.get(device);
    if (!entry) devices.set(device, (entry = { predictions: new Map(), samples: new Map() }));
    return entry;
  };
  for (const { device, boot, count } of segments) add(of(device).predictions, boot, count);
  for (const { device, prediction_boot } of samples) add(of(device).samples, prediction_boot, 1);
  return [...devices].map(([device, counts]) => ({ device, ...counts }));
}

function add(counts: Map<number, number>, key: number, count: number): void {
  counts.set(key, (counts.get(key) ?? 0) + count);
}

function readBlob(dataDir: string, sha256: string): Buffer | undefined {
  try {
    return readFileSync(join(dataDir, "blobs", sha256.slice(0, 2), sha256));
  } catch {
    return undefined;
  }
}
