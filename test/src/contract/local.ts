import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Tensor } from "@fieldloop/runtime";
import { contractModels, type ContractModel, type ContractSubject } from "@fieldloop/runtime/contract";
import { backendFor, ortNode } from "@fieldloop/runtime/node";

/** The suite's networks as files in a folder of their own. */
export interface ModelFolder {
  readonly dir: string;
  pathOf(model: ContractModel): string;
  readonly brokenPath: string;
  remove(): Promise<void>;
}

export async function writeModels(): Promise<ModelFolder> {
  const dir = await mkdtemp(join(tmpdir(), "fieldloop-contract-"));
  const pathOf = (model: ContractModel): string => join(dir, `${model.name}.onnx`);
  for (const model of contractModels().values()) await writeFile(pathOf(model), model.bytes);
  const brokenPath = join(dir, "broken.bin");
  await writeFile(brokenPath, "no model");
  return { dir, pathOf, brokenPath, remove: () => rm(dir, { recursive: true, force: true }) };
}

const references = new Map<string, Promise<Readonly<Record<string, Tensor>>>>();

/** What ONNX Runtime on the CPU of this process gives; computed once. */
export function cpuReference(model: ContractModel): Promise<Readonly<Record<string, Tensor>>> {
  let reference = references.get(model.name);
  if (reference === undefined) {
    reference = computeReference(model);
    references.set(model.name, reference);
  }
  return reference;
}

async function computeReference(model: ContractModel): Promise<Readonly<Record<string, Tensor>>> {
  const session = await ortNode.openSession(model.bytes, { threadCount: 1, executionProvider: "cpu" });
  try {
    return await session.run(model.feeds);
  } finally {
    await session.release();
  }
}

/** A backend of this process under the suite. */
export function localSubject(executionProvider: string, folder: ModelFolder): ContractSubject {
  const open = async (path: string): ReturnType<ContractSubject["open"]> =>
    (await backendFor(executionProvider)).openSession(path, { threadCount: 1, executionProvider });
  return {
    open: (model) => open(folder.pathOf(model)),
    openBroken: () => open(folder.brokenPath),
    reference: cpuReference,
  };
}
