import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { GoldenCase } from "@fieldloop/protocol";
import {
  asFloat32,
  DEFAULT_TOLERANCE,
  tensorFromBytes,
  tensorToBytes,
  type Session,
  type Tensor,
} from "@fieldloop/runtime";
import type { ManifestDraft, ModelPackage } from "@fieldloop/runtime/node";

/** Room that other kernels of the same precision get beyond the difference measured here. */
const INT8_ROOM = 2;

type GoldenDraft = NonNullable<ManifestDraft["golden"]>;

/**
 * The base's golden cases with the new model's outputs: the same inputs, expected values of the float model, and an int8
 * tolerance that holds what was measured here with room to spare.
 */
export async function makeGolden(
  base: ModelPackage,
  float: Session,
  int8: Session | undefined,
): Promise<{ golden: GoldenDraft; files: Record<string, Uint8Array> }> {
  const files: Record<string, Uint8Array> = {};
  const golden: GoldenDraft = [];
  for (const entry of base.manifest.golden) {
    const feeds = await readInputs(base, entry, files);
    const fetches = entry.outputs.map(({ name }) => name);
    const expected = await float.run(feeds, fetches);
    const actual = await int8?.run(feeds, fetches);
    for (const { name, file } of entry.outputs) files[file] = tensorToBytes(expected[name]!);
    golden.push({
      name: entry.name,
      inputs: entry.inputs.map(({ file, name, elementType, dims }) => ({ file, name, elementType, dims })),
      outputs: entry.outputs.map(({ file, name }) => {
        const { type, dims } = expected[name]!;
        return { file, name, elementType: type, dims: [...dims] };
      }),
      tolerance: actual
        ? { ...entry.tolerance, int8: int8Tolerance(entry, expected, actual) }
        : entry.tolerance,
    });
  }
  return { golden, files };
}

async function readInputs(
  base: ModelPackage,
  entry: GoldenCase,
  files: Record<string, Uint8Array>,
): Promise<Record<string, Tensor>> {
  const feeds: Record<string, Tensor> = {};
  for (const { file, name, elementType, dims } of entry.inputs) {
    const bytes = new Uint8Array(await readFile(join(base.dir, file)));
    files[file] = bytes;
    feeds[name] = tensorFromBytes(elementType, dims, bytes);
  }
  return feeds;
}

function int8Tolerance(
  entry: GoldenCase,
  expected: Readonly<Record<string, Tensor>>,
  actual: Readonly<Record<string, Tensor>>,
): { absolute: number; relative: number } {
  const before = entry.tolerance.int8 ?? DEFAULT_TOLERANCE.int8;
  let worst = 0;
  for (const { name } of entry.outputs) {
    const wanted = asFloat32(expected[name]!);
    asFloat32(actual[name]!).forEach((value, at) => {
      worst = Math.max(worst, Math.abs(value - wanted[at]!));
    });
  }
  return { absolute: Math.max(before.absolute, INT8_ROOM * worst), relative: before.relative };
}
