import { toFieldloopError } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { asFloat32 } from "../package/tensor-bytes.js";
import { backendFor } from "./backends.js";
import { serveScratch } from "./scratch-child.js";
import type { TensorSummary, TrialReply, TrialRequest, TrialResult } from "./trial-messages.js";

/** The child process of a trial. */
serveScratch(async (request, phase): Promise<TrialReply> => {
  try {
    return { ok: true, result: await attempt(request as TrialRequest, phase) };
  } catch (error) {
    const { code, message } = toFieldloopError(error);
    return { ok: false, code, message };
  }
});

async function attempt(request: TrialRequest, phase: (name: string) => void): Promise<TrialResult> {
  phase("opening");
  const started = performance.now();
  const executionProvider = request.executionProvider ?? "cpu";
  const backend = await backendFor(executionProvider);
  const session = await backend.openSession(request.modelPath, {
    threadCount: 1,
    executionProvider,
    graphOptimization: request.graphOptimization,
    ...(request.optimizedModelPath === undefined ? {} : { optimizedModelPath: request.optimizedModelPath }),
  });
  const openMs = performance.now() - started;
  try {
    const { inputs, outputs, omitted } = session;
    if (request.feeds === undefined) {
      const nothing = { runMs: undefined, providerShares: undefined, results: {}, summaries: {} };
      return { inputs, outputs, omitted, openMs, ...nothing };
    }
    phase("running");
    const runStarted = performance.now();
    const all = outputs.map((output) => output.name).filter((name) => !omitted.includes(name));
    const results = await session.run(request.feeds, request.fetches ?? all);
    const runMs = performance.now() - runStarted;
    const summaries = Object.fromEntries(
      Object.entries(results).map(([name, tensor]) => [name, summaryOf(tensor)]),
    );
    const providerShares =
      request.shares === true ? await session.providerShares?.(request.feeds) : undefined;
    const shown = { results: request.values ? results : {}, summaries };
    return { inputs, outputs, omitted, openMs, runMs, providerShares, ...shown };
  } finally {
    await session.release();
  }
}

function summaryOf(tensor: Tensor): TensorSummary {
  const { type, dims } = tensor;
  let notFinite = 0;
  if (type.startsWith("float")) {
    const values = tensor.data instanceof Float64Array ? tensor.data : asFloat32(tensor);
    for (const value of values) if (!Number.isFinite(value)) notFinite++;
  }
  return { type, dims, notFinite };
}
