import { encodeModel, float32Tensor, GraphBuilder, int64Tensor, tensorToBytes } from "@fieldloop/runtime";
import { type ManifestDraft, type ModelPackage, writePackage } from "@fieldloop/runtime/node";

export interface BrightnessOptions {
  readonly version: number;
  /**
   * A graph that ONNX Runtime 1.30 dies of (SIGFPE) where no pixel is quite black or quite white: `TopK` over zero rows. The
   * golden case has white ones and a warm-up is black, so that only the field shows it.
   */
  readonly deadlyInTheField?: boolean;
}

const SIDE = 8;
const PIXELS = SIDE * SIDE;

/** A model that takes microseconds: whether an image is dark or light. It makes a fleet fast, and breaks in chosen ways. */
export async function writeBrightnessPackage(
  folder: string,
  options: BrightnessOptions,
): Promise<ModelPackage> {
  const input = Float32Array.from({ length: PIXELS }, (_, index) => (index % 2 === 0 ? 1 : 0.5));
  const expected = Float32Array.from([-2, 2]);
  const dims = [1, 1, SIDE, SIDE];
  const draft: ManifestDraft = {
    schema: 1,
    model: "brightness",
    version: options.version,
    created: "2026-11-20T00:00:00Z",
    task: "classification",
    licence: "Apache-2.0",
    inputs: [
      {
        kind: "image",
        name: "image",
        width: SIDE,
        height: SIDE,
        colour: "gray",
        resize: "stretch",
        layout: "nchw",
        range: "unit",
      },
    ],
    heads: [
      {
        kind: "classification",
        name: "class",
        output: "logits",
        labels: ["dark", "light"],
        values: "logits",
      },
    ],
    signals: ["entropy", "margin", "energy", "brightness"],
    variants: [
      { name: "fp32", file: "fp32.onnx", precision: "fp32", opset: 17, executionProviders: ["cpu"] },
    ],
    golden: [
      {
        name: "bright",
        inputs: [{ file: "golden/in.bin", name: "image", elementType: "float32", dims }],
        outputs: [{ file: "golden/out.bin", name: "logits", elementType: "float32", dims: [1, 2] }],
        tolerance: { fp32: { absolute: 0.1, relative: 0 } },
      },
    ],
    lineage: { base: null, snapshot: null, trainer: "by hand", settings: {}, libraries: {}, metrics: {} },
  };
  return writePackage(folder, draft, {
    "fp32.onnx": brightnessModel(options.version, options.deadlyInTheField === true),
    "golden/in.bin": tensorToBytes({ type: "float32", dims, data: input }),
    "golden/out.bin": tensorToBytes({ type: "float32", dims: [1, 2], data: expected }),
  });
}

/** The version moves the weights by less than the tolerance: another number, other bytes, the same answers. */
function brightnessModel(version: number, deadly: boolean): Uint8Array {
  const graph = new GraphBuilder();
  const image = graph.input("image", "float32", [1, 1, SIDE, SIDE]);
  const [flat] = graph.node("Flatten", [image], { axis: { i: 1 } });
  const slope = 8 + (version % 100) * 1e-4;
  const perPixel = (value: number): number[] => new Array<number>(PIXELS).fill(value / PIXELS);
  const weight = graph.initializer(
    float32Tensor("weight", [2, PIXELS], [...perPixel(-slope), ...perPixel(slope)]),
  );
  const bias = graph.initializer(float32Tensor("bias", [2], [4, -4]));
  const output = deadly ? "plain" : "logits";
  graph.node("Gemm", [flat!, weight, bias], { transB: { i: 1 } }, [output]);
  if (deadly) addTopKOverExtremePixels(graph, flat!);
  graph.output("logits", "float32", [1, 2]);
  return encodeModel(graph.build({ opset: 17 }));
}

/** logits = plain + 0 · (the sum of the best place of each black or white pixel). */
function addTopKOverExtremePixels(graph: GraphBuilder, flat: string): void {
  const half = graph.initializer(float32Tensor("half", [], [0.5]));
  const limit = graph.initializer(float32Tensor("limit", [], [0.49]));
  const one = graph.initializer(int64Tensor("one", [1], [1]));
  const zero = graph.initializer(float32Tensor("zero", [], [0]));
  const axes = graph.initializer(int64Tensor("axes", [2], [0, 1]));
  const [signed] = graph.node("Sub", [flat, half]);
  const [distance] = graph.node("Abs", [signed!]);
  const [extreme] = graph.node("Greater", [distance!, limit]);
  const [places] = graph.node("NonZero", [extreme!]);
  const [rows] = graph.node("Transpose", [places!], { perm: { ints: [1, 0] } });
  const [values] = graph.node("Cast", [rows!], { to: { i: 1 } });
  const [best] = graph.node("TopK", [values!, one], { axis: { i: 1 } }, 2);
  const [sum] = graph.node("ReduceSum", [best!, axes], { keepdims: { i: 0 } });
  const [nothing] = graph.node("Mul", [sum!, zero]);
  graph.node("Add", ["plain", nothing!], {}, ["logits"]);
}
