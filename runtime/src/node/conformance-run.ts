import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { toFieldloopError } from "@fieldloop/protocol";
import type { Session, Tensor } from "../backend.js";
import { checkModel } from "../onnx/check.js";
import { halfToNumber, tensorFromBytes } from "../package/tensor-bytes.js";
import type { CaseResult, CaseTensor, ConformanceCase } from "./conformance-case.js";
import { cleanNativeMessage } from "./native-message.js";
import { ortNode } from "./ort.js";

/** |actual − expected| ≤ absolute + relative · |expected|, as the ONNX backend tests compare. */
export const CONFORMANCE_TOLERANCE = { relative: 1e-3, absolute: 1e-5 } as const;

const WHY_LENGTH_MAX = 400;

/**
 * Takes a case through the runtime: gate, session by path from a folder of its own, run, comparison. Never throws.
 * @param within where that folder is made: a process that dies leaves it behind
 */
export async function runCase(entry: ConformanceCase, within: string): Promise<CaseResult> {
  const bytes = new Uint8Array(Buffer.from(entry.model_b64, "base64"));
  try {
    checkModel(bytes);
  } catch (error) {
    return failed("load-fail", error, bytes);
  }
  const folder = await mkdtemp(join(within, "case-"));
  try {
    const path = join(folder, "model.onnx");
    await writeFile(path, bytes);
    let session: Session;
    try {
      session = await ortNode.openSession(path, { threadCount: 1, executionProvider: "cpu" });
    } catch (error) {
      return failed("load-fail", error, bytes);
    }
    try {
      return await runOpened(session, entry, bytes);
    } finally {
      await session.release();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function runOpened(session: Session, entry: ConformanceCase, model: Uint8Array): Promise<CaseResult> {
  const feeds: Record<string, Tensor> = {};
  for (const [name, tensor] of Object.entries(entry.inputs)) {
    if ("unsupported" in tensor) {
      return { status: "type-not-in-node", why: `input "${name}" is of type ${tensor.unsupported}` };
    }
    feeds[name] = toTensor(tensor);
  }
  for (const [name, tensor] of Object.entries(entry.outputs)) {
    if ("unsupported" in tensor) {
      return { status: "type-not-in-node", why: `output "${name}" is of type ${tensor.unsupported}` };
    }
  }
  let outputs: Record<string, Tensor>;
  try {
    outputs = await session.run(feeds, Object.keys(entry.outputs));
  } catch (error) {
    return failed("run-fail", error, model);
  }
  for (const [name, expected] of Object.entries(entry.outputs)) {
    if ("unsupported" in expected) continue;
    const why = difference(outputs[name], toTensor(expected), entry.random);
    if (why !== undefined) return { status: "mismatch", why: `${name} ${why}` };
  }
  return { status: "pass", why: "" };
}

function toTensor(tensor: Exclude<CaseTensor, { unsupported: string }>): Tensor {
  if (tensor.type === "string") return { type: "string", dims: tensor.dims, data: [...tensor.strings] };
  return tensorFromBytes(tensor.type, tensor.dims, Buffer.from(tensor.b64, "base64"));
}

/** How a tensor differs from what was wanted; `undefined` where it does not. */
function difference(actual: Tensor | undefined, expected: Tensor, random: boolean): string | undefined {
  if (actual === undefined) return "is missing";
  if (actual.type !== expected.type) return `is ${actual.type}, wanted ${expected.type}`;
  if (actual.dims.join() !== expected.dims.join()) {
    return `has dimensions [${actual.dims.join(",")}], wanted [${expected.dims.join(",")}]`;
  }
  if (random) return undefined;
  let worst = 0;
  for (let at = 0; at < expected.data.length; at++) {
    worst = Math.max(worst, excess(valueAt(actual, at), valueAt(expected, at)));
  }
  return worst <= 1 ? undefined : `worst ${worst.toPrecision(3)} x tolerance`;
}

function valueAt(tensor: Tensor, at: number): number | string {
  const value = tensor.data[at]!;
  if (typeof value === "string") return value;
  return tensor.type === "float16" ? halfToNumber(Number(value)) : Number(value);
}

/** The difference as a multiple of what is tolerated. */
function excess(actual: number | string, expected: number | string): number {
  if (Object.is(actual, expected) || actual === expected) return 0;
  if (typeof actual === "string" || typeof expected === "string") return Number.POSITIVE_INFINITY;
  const { absolute, relative } = CONFORMANCE_TOLERANCE;
  const ratio = Math.abs(actual - expected) / (absolute + relative * Math.abs(expected));
  return Number.isNaN(ratio) ? Number.POSITIVE_INFINITY : ratio;
}

function failed(status: "load-fail" | "run-fail", error: unknown, model: Uint8Array): CaseResult {
  const { message } = toFieldloopError(error);
  return { status, why: cleanNativeMessage(message, model).slice(0, WHY_LENGTH_MAX) };
}
