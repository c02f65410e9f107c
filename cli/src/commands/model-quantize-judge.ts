import { decidingHead, FieldloopError, type Manifest } from "@fieldloop/protocol";
import {
  argmax,
  intersectionOverUnion,
  Predictor,
  type Baseline,
  type Evaluation,
  type Feeds,
  type Frame,
  type Prediction,
  type Tensor,
} from "@fieldloop/runtime";
import { ortNode, prepareImage } from "@fieldloop/runtime/node";

/** An input of a package's model, with its true class where that is known. */
export interface Item {
  readonly frame: Frame;
  readonly truth?: number;
}

const THREADS = 2;

/** What says how a package's frames become predictions. */
export interface Judged {
  readonly manifest: Manifest;
  /** What anomalies by embedding are measured against. */
  readonly baseline: Baseline | undefined;
}

/** What the float model is fed for each frame, recurrent state included, which is why it runs. */
export async function* feedsOf(
  modelBytes: Uint8Array,
  judged: Judged,
  items: readonly Item[],
): AsyncGenerator<Feeds> {
  if (items.length === 0) return;
  const { predictor, release } = await openPredictor(modelBytes, judged);
  try {
    for (const { frame } of items) {
      if (frame.kind === "tensors") yield frame.feeds;
      else yield (await predictor.predictWith(frame)).prepared.feeds;
    }
  } finally {
    await release();
  }
}

async function openPredictor(modelBytes: Uint8Array, { manifest, baseline }: Judged) {
  const session = await ortNode.openSession(modelBytes, { threadCount: THREADS, executionProvider: "cpu" });
  const predictor = new Predictor({
    manifest,
    session,
    sizeImage: prepareImage,
    now: () => performance.now(),
    ...(baseline === undefined ? {} : { baseline }),
  });
  return { predictor, release: () => session.release() };
}

/** Heads whose decision says all; of the others the tensors are compared. */
const AGREEING_HEADS: ReadonlySet<string> = new Set(["classification", "detection", "anomaly"]);

/** Share of right answers where every input has a truth; else how far the variant says what the float model says. */
export function packageEvaluation(
  floatBytes: Uint8Array,
  judged: Judged,
  items: readonly Item[],
): Evaluation {
  const labelled = items.every(({ truth }) => truth !== undefined);
  const decides = AGREEING_HEADS.has(decidingHead(judged.manifest.heads)?.kind ?? "");
  let reference: Prediction[] | undefined;
  const predictAll = async (bytes: Uint8Array): Promise<Prediction[]> => {
    const { predictor, release } = await openPredictor(bytes, judged);
    try {
      const predictions: Prediction[] = [];
      for (const { frame } of items) predictions.push(await predictor.predict(frame));
      return predictions;
    } finally {
      await release();
    }
  };
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  if (labelled && decides) {
    return {
      metric: "accuracy",
      samples: items.length,
      evaluate: async (bytes) =>
        mean(
          (await predictAll(bytes)).map((prediction, at) => Number(prediction.class === items[at]!.truth)),
        ),
    };
  }
  if (!decides) return closenessOf(floatBytes, () => feedsOf(floatBytes, judged, items), items.length);
  return {
    metric: "agreement",
    samples: items.length,
    evaluate: async (bytes) => {
      reference ??= await predictAll(floatBytes);
      return mean((await predictAll(bytes)).map((prediction, at) => agreement(reference![at]!, prediction)));
    },
  };
}

/** 1 for the same class; for boxes the F1 score of matching them at an overlap of one half, the float model's being the truth. */
export function agreement(reference: Prediction, test: Prediction): number {
  if (!reference.boxes || !test.boxes) return Number(reference.class === test.class);
  if (reference.boxes.length + test.boxes.length === 0) return 1;
  const open = [...test.boxes];
  let matched = 0;
  for (const box of reference.boxes) {
    const at = open.findIndex(
      (other) => other.class === box.class && intersectionOverUnion(box, other) >= 0.5,
    );
    if (at < 0) continue;
    open.splice(at, 1);
    matched++;
  }
  return (2 * matched) / (reference.boxes.length + test.boxes.length);
}

/** As {@link packageEvaluation}, for a bare file: by its first output and labels, else by closeness. */
export function fileEvaluation(
  floatBytes: Uint8Array,
  items: readonly { readonly feeds: Feeds; readonly truth: number | undefined }[],
): Evaluation {
  const classes = async (bytes: Uint8Array): Promise<number[] | undefined> => {
    const found: number[] = [];
    for await (const outputs of runAll(
      bytes,
      items.map(({ feeds }) => feeds),
    )) {
      const [first] = Object.values(outputs);
      if (!first || !(first.data instanceof Float32Array) || first.data.length < 2 || first.dims.length !== 2)
        return undefined;
      found.push(argmax(first.data));
    }
    return found;
  };
  const labelled = items.every(({ truth }) => truth !== undefined);
  let reference: readonly (number | undefined)[] | undefined;
  const closeness = closenessOf(floatBytes, () => items.map(({ feeds }) => feeds), items.length);
  return {
    metric: labelled ? "accuracy" : "closeness",
    samples: items.length,
    evaluate: async (bytes) => {
      if (!labelled) return closeness.evaluate(bytes);
      reference ??= items.map(({ truth }) => truth);
      const found = await classes(bytes);
      if (!found) {
        throw new FieldloopError(
          "invalid_argument",
          "Judge by labels: the first output is no [1, classes] of float32",
        );
      }
      return found.filter((value, at) => value === reference![at]).length / found.length;
    },
  };
}

async function* runAll(
  bytes: Uint8Array,
  inputs: AsyncIterable<Feeds> | Iterable<Feeds>,
): AsyncGenerator<Record<string, Tensor>> {
  const session = await ortNode.openSession(bytes, { threadCount: THREADS, executionProvider: "cpu" });
  try {
    for await (const feeds of inputs) yield await session.run(feeds);
  } finally {
    await session.release();
  }
}

/** 1 minus the root mean square difference of the outputs over their root mean square; the worst output counts. */
function closenessOf(
  floatBytes: Uint8Array,
  inputs: () => AsyncIterable<Feeds> | Iterable<Feeds>,
  samples: number,
): Evaluation {
  const evaluate = async (bytes: Uint8Array): Promise<number> => {
    const sums = new Map<string, { error: number; power: number }>();
    const tested = runAll(bytes, inputs());
    for await (const reference of runAll(floatBytes, inputs())) {
      const test = (await tested.next()).value as Record<string, Tensor>;
      for (const [name, { data }] of Object.entries(reference)) {
        const other = test[name]?.data;
        if (!(data instanceof Float32Array) || !(other instanceof Float32Array)) continue;
        const sum = sums.get(name) ?? { error: 0, power: 0 };
        data.forEach((value, at) => {
          sum.error += (value - other[at]!) ** 2;
          sum.power += value ** 2;
        });
        sums.set(name, sum);
      }
    }
    await tested.return(undefined);
    return Math.min(
      ...[...sums.values()].map(({ error, power }) => 1 - Math.sqrt(error / Math.max(power, 1e-30))),
    );
  };
  return { metric: "closeness", samples, evaluate };
}
