import { FieldloopError } from "@fieldloop/protocol";
import { valueInfo } from "../onnx/builder.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { QUANTIZE_LIMITS } from "./limits.js";
import { rangeObserver, type RangeObserver, type RealRange } from "./observer.js";
import type { Feeds, QuantizeOptions } from "./types.js";

export interface Calibration {
  readonly ranges: ReadonlyMap<string, RealRange>;
  readonly batches: number;
  /** The first batches, for comparing layers afterwards. */
  readonly kept: readonly Feeds[];
}

/** A copy of a model that also gives the named float32 activations as outputs. */
export function exposeTensors(bytes: Uint8Array, names: Iterable<string>): Uint8Array {
  const model = decodeModel(bytes);
  const graph = graphOf(model);
  const present = new Set([...graph.output, ...graph.input].map((entry) => entry.name));
  for (const name of names) if (!present.has(name)) graph.output.push(valueInfo(name, "float32"));
  return encodeModel(model);
}

/**
 * Runs the float model over the calibration inputs and observes the named tensors. One batch of activations is in
 * memory at a time. Throws `invalid_argument` without inputs and `quantization_rejected` for values that are not finite.
 */
export async function calibrate(
  bytes: Uint8Array,
  names: readonly string[],
  options: QuantizeOptions,
): Promise<Calibration> {
  const observers = new Map<string, RangeObserver>(
    names.map((name) => [name, rangeObserver(name, options.method)]),
  );
  const session = await options.backend.openSession(exposeTensors(bytes, names), {
    threadCount: options.threadCount ?? 1,
    executionProvider: "cpu",
  });
  const inputs = new Set(session.inputs.map((input) => input.name));
  const fetches = names.filter((name) => !inputs.has(name));
  // A run needs at least one output, even when only inputs are observed.
  if (fetches.length === 0) fetches.push(session.outputs[0]!.name);
  const kept: Feeds[] = [];
  let keptBytes = 0;
  let batches = 0;
  try {
    for await (const feeds of options.calibration) {
      options.signal?.throwIfAborted();
      if (++batches > QUANTIZE_LIMITS.calibrationBatchesMax) {
        throw new FieldloopError(
          "limit_exceeded",
          `Calibrate: more than ${QUANTIZE_LIMITS.calibrationBatchesMax} batches`,
        );
      }
      const results = await session.run(feeds, fetches);
      for (const [name, observer] of observers) {
        const data = (results[name] ?? feeds[name])?.data;
        if (data instanceof Float32Array) observer.observe(data);
        else throw new FieldloopError("onnx_unsupported", `Calibrate: tensor "${name}" is not float32`);
      }
      keptBytes += feedBytes(feeds);
      if (kept.length < QUANTIZE_LIMITS.comparedBatchesMax && keptBytes <= QUANTIZE_LIMITS.comparedBytesMax) {
        kept.push(copyFeeds(feeds));
      }
    }
  } finally {
    await session.release();
  }
  if (batches === 0) throw new FieldloopError("invalid_argument", "Calibrate: no calibration inputs");
  const ranges = new Map([...observers].map(([name, observer]) => [name, observer.range()]));
  return { ranges, batches, kept };
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
