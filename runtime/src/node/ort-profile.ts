import { z } from "zod";
import { FieldloopError } from "@fieldloop/protocol";

/** Events of a profile that are read, at most: a profile of one run has a few per node. */
const EVENTS_MAX = 1_000_000;

const eventSchema = z.object({
  cat: z.string(),
  name: z.string(),
  args: z.object({ provider: z.string().optional() }).optional(),
});
const profileSchema = z.array(eventSchema).max(EVENTS_MAX);

/** ONNX Runtime's names of its execution providers, as its own `GetProviderName` has them. */
const PROVIDER_NAMES: Readonly<Record<string, string>> = {
  CPUExecutionProvider: "cpu",
  WebGpuExecutionProvider: "webgpu",
  CUDAExecutionProvider: "cuda",
  TensorrtExecutionProvider: "tensorrt",
  NvTensorRTRTXExecutionProvider: "tensorrt-rtx",
  CoreMLExecutionProvider: "coreml",
  DmlExecutionProvider: "dml",
  OpenVINOExecutionProvider: "openvino",
  QNNExecutionProvider: "qnn",
  XnnpackExecutionProvider: "xnnpack",
};

/**
 * Reads a profile of ONNX Runtime (a Chrome trace: an array of events) and counts the nodes of the optimized graph that
 * each execution provider ran. A node that ran several times, as in a loop, counts once.
 * @returns shares that add up to 1; empty where no node ran
 * @throws FieldloopError `data_file_malformed`
 */
export function sharesOfProfile(text: string): Record<string, number> {
  const nodes = new Map<string, string>();
  for (const { cat, name, args } of parseProfile(text)) {
    if (cat !== "Node" || args?.provider === undefined || !name.endsWith("_kernel_time")) continue;
    nodes.set(name, PROVIDER_NAMES[args.provider] ?? args.provider);
  }
  const counts: Record<string, number> = {};
  for (const provider of nodes.values()) counts[provider] = (counts[provider] ?? 0) + 1;
  // Divided once: a sum of fractions may come out above 1.
  return Object.fromEntries(
    Object.entries(counts).map(([provider, count]) => [provider, count / nodes.size]),
  );
}

function parseProfile(text: string): z.output<typeof profileSchema> {
  try {
    return profileSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new FieldloopError("data_file_malformed", "Read profile: not the trace that ONNX Runtime writes", {
      cause,
    });
  }
}
