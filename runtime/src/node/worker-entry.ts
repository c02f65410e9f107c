import { parentPort } from "node:worker_threads";
import { ModelSlots } from "./model-slots.js";
import { toWireFailure, type WorkerEnvelope, type WorkerReply } from "./worker-messages.js";
import { largeBuffers, mayReturn } from "./worker-transfer.js";

/**
 * The thread of a {@link ModelWorker}: holds the sessions and answers one request after the other, in order. It ends by
 * itself after "stop": every session released, the port closed. Ending it from outside during a run aborts the process.
 */
if (parentPort === null) throw new Error("worker-entry runs only as a worker thread");
const port = parentPort;
const slots = new ModelSlots();

port.on("message", (message: WorkerEnvelope) => void answer(message));

async function answer(message: WorkerEnvelope): Promise<void> {
  let reply: WorkerReply;
  let moved: ArrayBuffer[] = [];
  try {
    const value = await slots.answer(message);
    const returned = mayReturn(message.kind, value) ? message.lent : [];
    reply = { id: message.id, ok: true, value, returned };
    moved = [...largeBuffers(message.kind, value), ...returned];
  } catch (error) {
    reply = { id: message.id, ok: false, error: toWireFailure(error) };
  }
  send(reply, moved);
  if (message.kind === "stop") port.close();
}

/** A native library may own memory that cannot move. */
function send(reply: WorkerReply, moved: ArrayBuffer[]): void {
  try {
    port.postMessage(reply, moved);
  } catch {
    port.postMessage(reply.ok ? { ...reply, returned: [] } : reply);
  }
}
