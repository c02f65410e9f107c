import { FieldloopError } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import { groupBySize, GroupedSession, inferredBytes, inferTypes } from "./groups.js";
import type { InputObserver, InputStatistics } from "./input-statistics.js";
import { QUANTIZE_LIMITS } from "./limits.js";
import { rangeObserver, type RangeObserver, type RealRange } from "./observer.js";
import type { Feeds, QuantizeOptions } from "./types.js";

export interface Calibration {
  readonly ranges: ReadonlyMap<string, RealRange>;
  /** By what the node writes, for those that were asked for. */
  readonly statistics: ReadonlyMap<string, InputStatistics>;
  readonly batches: number;
  /** The first batches, for comparing layers afterwards. */
  readonly kept: readonly Feeds[];
}

export type CalibrateOptions = Pick<
  QuantizeOptions,
  "backend" | "calibration" | "method" | "threadCount" | "signal" | "onProgress"
>;

/** A product whose inputs are looked at beyond their range. */
export interface ObservedInput {
  readonly node: string;
  readonly tensor: string;
  readonly observer: InputObserver;
}

/**
 * Runs the float model over the calibration inputs and observes the named tensors; those that are not float32 are left out.
 * Of one batch at most `activationBytesMax` of activations are in memory, of those before only what the observers keep.
 * Throws `invalid_argument` without inputs and `quantization_rejected` for values that are not finite.
 */
export async function calibrate(
  bytes: Uint8Array,
  names: readonly string[],
  options: CalibrateOptions,
  inputs: readonly ObservedInput[] = [],
): Promise<Calibration> {
  const types = await inferTypes(options.backend, bytes);
  const floats = names.filter((name) => types.get(name)?.type === "float32");
  const read = inputs.map(({ tensor }) => tensor).filter((name) => types.get(name)?.type === "float32");
  const observers = new Map<string, RangeObserver>(
    floats.map((name) => [name, rangeObserver(name, options.method)]),
  );
  const open = (exposed: Uint8Array) =>
    options.backend.openSession(exposed, {
      threadCount: options.threadCount ?? 1,
      executionProvider: "cpu",
    });
  const sizeOf = (name: string) => inferredBytes(types.get(name) as TensorInfo | undefined);
  const sessions = await GroupedSession.open(
    bytes,
    groupBySize([...new Set([...floats, ...read])], sizeOf),
    open,
  );
  try {
    const { kept, batches } = await observeAll(sessions, observers, inputs, options);
    return {
      ranges: new Map([...observers].map(([name, observer]) => [name, observer.range()])),
      statistics: new Map(
        inputs.flatMap(({ node, observer }): [string, InputStatistics][] => {
          const statistics = observer.statistics();
          return statistics ? [[node, statistics]] : [];
        }),
      ),
      batches,
      kept,
    };
  } finally {
    await sessions.release();
  }
}

async function observeAll(
  sessions: GroupedSession,
  observers: ReadonlyMap<string, RangeObserver>,
  inputs: readonly ObservedInput[],
  options: CalibrateOptions,
): Promise<{ kept: Feeds[]; batches: number }> {
  const kept: Feeds[] = [];
  let keptBytes = 0;
  let batches = 0;
  for await (const feeds of options.calibration) {
    options.signal?.throwIfAborted();
    if (++batches > QUANTIZE_LIMITS.calibrationBatchesMax) {
      throw new FieldloopError(
        "limit_exceeded",
        `Calibrate: more than ${QUANTIZE_LIMITS.calibrationBatchesMax} batches`,
      );
    }
    for (let group = 0; group < sessions.groupCount; group++) {
      for (const [name, tensor] of Object.entries(await sessions.run(group, feeds))) {
        if (!(tensor.data instanceof Float32Array)) continue;
        observers.get(name)?.observe(tensor.data);
        for (const input of inputs) if (input.tensor === name) input.observer.observe(tensor);
      }
    }
    keptBytes += feedBytes(feeds);
    if (kept.length < QUANTIZE_LIMITS.comparedBatchesMax && keptBytes <= QUANTIZE_LIMITS.comparedBytesMax) {
      kept.push(copyFeeds(feeds));
    }
    options.onProgress?.({ stage: "calibrate", done: batches });
  }
  if (batches === 0) throw new FieldloopError("invalid_argument", "Calibrate: no calibration inputs");
  return { kept, batches };
}

function feedBytes(feeds: Feeds): number {
  return Object.values(feeds).reduce(
    (sum, { data }) => sum + (Array.isArray(data) ? data.length : data.byteLength),
    0,
  );
}

/** Callers may reuse their input buffers from batch to batch. */
function copyFeeds(feeds: Feeds): Feeds {
  return Object.fromEntries(
    Object.entries(feeds).map(([name, tensor]) => [name, { ...tensor, data: tensor.data.slice() }]),
  );
}
