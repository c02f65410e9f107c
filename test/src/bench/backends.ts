import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { GraphBuilder, encodeModel, float32Tensor } from "@fieldloop/runtime";
import { Random } from "@fieldloop/runtime/simulate";
import { ModelServer } from "../contract/served.js";
import { SOFTWARE_VULKAN } from "../contract/software-vulkan.js";
import { progress, type Figure } from "./report.js";

const CHILD = fileURLToPath(new URL("./backends-child.js", import.meta.url));
const SECONDS_EACH = 3;
const TIMEOUT_MS = 120_000;
const SIDE = 224;
const MODEL = "stem";

/** Every backend that runs here on one small convolutional network of 224×224, each beside bare onnxruntime-node on the CPU. */
export async function measureBackends(): Promise<Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), "fieldloop-backends-"));
  const path = join(folder, `${MODEL}.onnx`);
  await writeFile(path, network());
  const server = await ModelServer.start([path, "--port", "0", "--grpc-port", "0"]);
  try {
    const figures: Figure[] = [];
    for (const { id, what, executionProvider, environment } of candidates(server)) {
      progress(`${what}: ${SECONDS_EACH} s`);
      const { stdout } = await promisify(execFile)(
        process.execPath,
        [CHILD, executionProvider, path, String(SECONDS_EACH)],
        { env: { ...process.env, ...environment }, timeout: TIMEOUT_MS },
      );
      const { bareMs, oursMs } = JSON.parse(stdout) as { bareMs: number; oursMs: number };
      figures.push({
        id,
        what: `one run, ${what}`,
        value: oursMs,
        unit: "ms",
        peer: { what: "ms bare onnxruntime-node, CPU", value: bareMs },
      });
    }
    return figures;
  } finally {
    await server.end();
    await rm(folder, { recursive: true, force: true });
  }
}

interface Candidate {
  readonly id: string;
  readonly what: string;
  readonly executionProvider: string;
  readonly environment?: Readonly<Record<string, string>>;
}

function candidates(server: ModelServer): Candidate[] {
  const software: Candidate = {
    id: "backend-webgpu-software",
    what: "WebGPU on software Vulkan",
    executionProvider: "webgpu",
    environment: { VK_DRIVER_FILES: SOFTWARE_VULKAN, XDG_RUNTIME_DIR: "/tmp" },
  };
  const withSoftware = existsSync(SOFTWARE_VULKAN);
  if (!withSoftware) progress(`left out: ${software.what}, ${SOFTWARE_VULKAN} is not installed`);
  return [
    { id: "backend-cpu", what: "CPU", executionProvider: "cpu" },
    ...(withSoftware ? [software] : []),
    { id: "backend-wasm", what: "WebAssembly in Node, 1 thread", executionProvider: "wasm" },
    {
      id: "backend-oip-http",
      what: "Open Inference Protocol over HTTP",
      executionProvider: `${server.providerPrefix("http")}${MODEL}`,
    },
    {
      id: "backend-oip-grpc",
      what: "Open Inference Protocol over gRPC",
      executionProvider: `${server.providerPrefix("grpc")}${MODEL}`,
    },
  ];
}

/** Four strided convolutions, a pool and a dense layer with seeded weights: about 40 million multiplications. */
function network(): Uint8Array {
  const random = new Random(4);
  const graph = new GraphBuilder();
  const weights = (name: string, dims: readonly number[]): string => {
    const count = dims.reduce((product, dim) => product * dim, 1);
    const scale = 1 / Math.sqrt(count / dims[0]!);
    return graph.initializer(
      float32Tensor(
        name,
        dims,
        Float32Array.from({ length: count }, () => scale * random.normal()),
      ),
    );
  };
  let at = graph.input("image", "float32", [1, 3, SIDE, SIDE]);
  const channels = [3, 16, 32, 64, 128];
  for (let layer = 1; layer < channels.length; layer++) {
    const [convolved] = graph.node(
      "Conv",
      [at, weights(`conv${layer}`, [channels[layer]!, channels[layer - 1]!, 3, 3])],
      { kernel_shape: { ints: [3, 3] }, strides: { ints: [2, 2] }, pads: { ints: [1, 1, 1, 1] } },
    );
    at = graph.node("Relu", [convolved!])[0]!;
  }
  const [pooled] = graph.node("GlobalAveragePool", [at]);
  const [flat] = graph.node("Flatten", [pooled!]);
  graph.node("Gemm", [flat!, weights("head", [10, 128])], { transB: { i: 1 } }, ["logits"]);
  graph.output("logits", "float32", [1, 10]);
  return encodeModel(graph.build({ opset: 17, graphName: MODEL }));
}
