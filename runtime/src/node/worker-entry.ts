import { parentPort } from "node:worker_threads";
import { FieldloopError } from "@fieldloop/protocol";
import { checkGolden } from "./golden.js";
import { openModel, type LoadedModel } from "./model.js";
import { openPackage } from "./package.js";
import { toWireFailure, type LoadedInfo, type WorkerEnvelope, type WorkerReply } from "./worker-messages.js";

/**
 * The thread of a {@link ModelWorker}: holds the sessions and answers one request after the other, in order. It ends by
 * itself after "stop": every session released, the port closed. Ending it from outside during a run aborts the process.
 */
if (parentPort === null) throw new Error("worker-entry runs only as a worker thread");
const port = parentPort;
const slots = new Map<string, LoadedModel>();
let tail: Promise<void> = Promise.resolve();

port.on("message", (message: WorkerEnvelope) => {
  tail = tail.then(() => answer(message));
});

async function answer(message: WorkerEnvelope): Promise<void> {
  let reply: WorkerReply;
  try {
    reply = { id: message.id, ok: true, value: await handle(message) };
  } catch (error) {
    reply = { id: message.id, ok: false, error: toWireFailure(error) };
  }
  port.postMessage(reply);
  if (message.kind === "stop") port.close();
}

async function handle(message: WorkerEnvelope): Promise<unknown> {
  switch (message.kind) {
    case "load":
      return load(message);
    case "predict":
      return modelIn(message.slot).predict(message.frame);
    case "run":
      return modelIn(message.slot).runTensors(message.feeds, message.fetches);
    case "checkGolden":
      return checkGolden(modelIn(message.slot));
    case "resetStream":
      return modelIn(message.slot).resetStream();
    case "unload":
      return unload(message.slot);
    case "stop":
      for (const slot of slots.keys()) await unload(slot);
      return undefined;
  }
}

/** Opens the new model before the old one of the slot goes, so that a package that does not open changes nothing. */
async function load(message: Extract<WorkerEnvelope, { kind: "load" }>): Promise<LoadedInfo> {
  const { slot, packageDir, options } = message;
  const { verifyFiles, ...modelOptions } = options;
  const pkg = await openPackage(packageDir, {
    purpose: "running",
    ...(verifyFiles === undefined ? {} : { verifyFiles }),
  });
  const model = await openModel(pkg, modelOptions);
  const old = slots.get(slot);
  slots.set(slot, model);
  await old?.release();
  const { manifest, variant, executionProvider } = model;
  return { manifest, variant, executionProvider, packageSha256: pkg.packageSha256 };
}

async function unload(slot: string): Promise<void> {
  const model = slots.get(slot);
  slots.delete(slot);
  await model?.release();
}

function modelIn(slot: string): LoadedModel {
  const model = slots.get(slot);
  if (model === undefined) throw new FieldloopError("not_found", `Use model: slot "${slot}" is empty`);
  return model;
}
