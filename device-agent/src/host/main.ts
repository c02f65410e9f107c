import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import { hostFacts } from "@fieldloop/runtime/node";
import { systemClock } from "../clock.js";
import type { Activation, ControlMessage, ControlRequest, HostMessage, WireFailure } from "../ipc.js";
import { InferenceLoop } from "./loop.js";
import { HostModel } from "./model.js";

/**
 * The inference host: the only process of the agent that loads native inference. Control starts it, talks to it over IPC
 * and may kill it at any time; without control it ends itself at once, so that no two hosts ever share a camera.
 */
let loop: InferenceLoop | undefined;

process.on("message", (message: ControlMessage) => {
  void receive(message);
});
// A native run cannot be interrupted and an orderly exit would wait for it: an orphan goes at once.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
// Ctrl-C reaches the whole group of processes; it is control that says when to stop.
process.on("SIGINT", () => undefined);

async function receive(message: ControlMessage): Promise<void> {
  switch (message.kind) {
    case "start": {
      const started = new InferenceLoop({ start: message, send, clock: systemClock, random: Math.random });
      loop = started;
      started.start();
      await send({ kind: "ready", activation: await firstActivation(started, message.package) });
      return;
    }
    case "policy":
      loop?.setPolicy(message.sampling, message.profileIntervalSeconds);
      return;
    case "request":
      return answer(message.id, message.request);
    case "stop":
      await loop?.stop();
      await send({ kind: "stopped" });
      process.removeAllListeners("disconnect");
      process.disconnect();
      return;
  }
}

async function firstActivation(
  started: InferenceLoop,
  target: Parameters<InferenceLoop["activate"]>[0] | undefined,
): Promise<Activation | undefined> {
  if (!target) return undefined;
  try {
    return await started.activate(target);
  } catch (error) {
    const failure = failureOf(error);
    await send({ kind: "warning", failure, active: true });
    return undefined;
  }
}

async function answer(id: number, request: ControlRequest): Promise<void> {
  try {
    await send({ kind: "response", id, value: await handle(request) });
  } catch (error) {
    await send({ kind: "refused", id, failure: failureOf(error) });
  }
}

async function handle(request: ControlRequest): Promise<unknown> {
  switch (request.kind) {
    case "facts":
      return hostFacts();
    case "self_test": {
      const model = await HostModel.load(request.package, request.threadCount);
      try {
        return await model.selfTest();
      } finally {
        await model.close();
      }
    }
    case "activate":
      return running().activate(request.package);
    case "deactivate":
      await running().deactivate();
      return {};
    case "capture":
      running().capture(request.count);
      return {};
    case "set_condition":
      running().setCondition(request.condition);
      return { condition: request.condition };
    case "truth": {
      const label = running().truth(request.n);
      return label === undefined ? undefined : { label };
    }
  }
}

function running(): InferenceLoop {
  if (!loop) throw new FieldloopError("conflict", "Ask host: it was not started");
  return loop;
}

/** Resolves when the message is in the pipe. */
function send(message: HostMessage): Promise<void> {
  return new Promise((resolve) => {
    if (!process.connected) {
      resolve();
      return;
    }
    process.send!(message, undefined, undefined, () => resolve());
  });
}

function failureOf(error: unknown): WireFailure {
  const { code, message } = toFieldloopError(error);
  return { code, message };
}
