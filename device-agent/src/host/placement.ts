import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Manifest } from "@fieldloop/protocol";
import { MANIFEST_FILE, inputExtent, parseManifest } from "@fieldloop/runtime";
import { ModelWorker, type LoadedInfo, type WorkerModelOptions } from "@fieldloop/runtime/node";
import { AGENT_LIMITS } from "../limits.js";

/** Where {@link ModelWorker} has the model. */
export const SLOT = "model";
export interface Opened {
  readonly worker: ModelWorker;
  readonly info: LoadedInfo;
  /** In the host's own thread. */
  readonly isHere: boolean;
}

export interface PlacementOptions extends WorkerModelOptions {
  /** A model whose warm run takes longer, milliseconds, runs in a thread of its own; 0 for every one. */
  readonly runMsMax: number;
  /** The same of a model that carries something from frame to frame: it cannot move to another thread later. `runMsMax` by default. */
  readonly carryingRunMsMax?: number | undefined;
  /** Frames run in this thread. */
  readonly isBusy: boolean;
}

/**
 * Opens a package in the thread where its frames are answered soonest (docs/adr/0015): the host's own where the CPU runs it, its files are
 * small and a warm run takes at most `runMsMax` milliseconds, else one of its own. What may run long or opens slowly shows in a thread of
 * its own first how long it takes. @throws FieldloopError as {@link ModelWorker.load}
 */
export async function openPlaced(
  directory: string,
  { isBusy, runMsMax, carryingRunMsMax, ...options }: PlacementOptions,
): Promise<Opened> {
  const limits = { runMsMax, carryingRunMsMax };
  const optionsHere = isBusy ? { ...options, stepPauseMs: AGENT_LIMITS.openStepPauseMs } : options;
  const mayBeHere = runMsMax > 0 && (options.executionProvider ?? "cpu") === "cpu";
  if (mayBeHere && (await isQuickToTry(directory))) {
    const here = await openHere(directory, optionsHere);
    if (isQuick(here, limits)) return here;
    await here.worker.stop();
    return openBeside(directory, options);
  }
  const beside = await openBeside(directory, options);
  if (!mayBeHere || bytesOf(beside.info) > AGENT_LIMITS.hostFileBytesMax || !isQuick(beside, limits))
    return beside;
  await beside.worker.stop();
  return openHere(directory, optionsHere);
}

async function openHere(directory: string, options: WorkerModelOptions): Promise<Opened> {
  await nextTurn();
  return openIn(new ModelWorker({ thread: false }), directory, options, true);
}

/** In a thread of its own. @throws FieldloopError as {@link ModelWorker.load} */
export function openBeside(directory: string, options: WorkerModelOptions): Promise<Opened> {
  return openIn(new ModelWorker(), directory, options, false);
}

async function openIn(
  worker: ModelWorker,
  directory: string,
  options: WorkerModelOptions,
  isHere: boolean,
): Promise<Opened> {
  await worker.start();
  try {
    return { worker, info: await worker.load(SLOT, directory, options), isHere };
  } catch (error) {
    await worker.stop();
    throw error;
  }
}

function isQuick(
  { info }: Opened,
  { runMsMax, carryingRunMsMax = runMsMax }: Pick<PlacementOptions, "runMsMax" | "carryingRunMsMax">,
): boolean {
  const most = carries(info.manifest) ? carryingRunMsMax : runMsMax;
  return (info.warmRunMs ?? Number.POSITIVE_INFINITY) <= most;
}

/** Whether what it says of a frame hangs on the frames before. */
export function carries(manifest: Manifest): boolean {
  const inputs = [manifest, ...manifest.nodes].flatMap((part) => part.inputs);
  return inputs.some((input) => input.kind === "state" || (input.kind === "window" && input.context > 0));
}

async function isQuickToTry(directory: string): Promise<boolean> {
  const manifest = parseManifest(await readFile(join(directory, MANIFEST_FILE)));
  const parts = [manifest, ...manifest.nodes];
  const bytes = parts.flatMap(({ variants }) => variants).reduce((sum, variant) => sum + variant.bytes, 0);
  const values = parts.flatMap(({ inputs }) => inputs).reduce((sum, input) => sum + inputExtent(input), 0);
  return bytes <= AGENT_LIMITS.quickFileBytesMax && values <= AGENT_LIMITS.quickInputValuesMax;
}

/** Of what is open; of a pipeline, at most. */
function bytesOf({ manifest, variant }: LoadedInfo): number {
  const ofNodes = manifest.nodes.flatMap(({ variants }) => variants);
  return ofNodes.reduce((sum, { bytes }) => sum + bytes, variant.bytes);
}
