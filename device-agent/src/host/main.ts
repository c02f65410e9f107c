import { Socket } from "node:net";
import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import { systemClock } from "../clock.js";
import type { ControlMessage, ControlRequest, HostMessage, WireFailure } from "../ipc.js";
import {
  SHADOW_SOCKET_FD,
  type ShadowBeginRequest,
  type ShadowOpened,
  type ShadowOpenRequest,
} from "../ipc-shadow.js";
import { AGENT_LIMITS } from "../limits.js";
import { Inference } from "./inference.js";
import type { ShadowCandidate } from "./shadow/candidate.js";

/**
 * The inference host: the only process of the agent that loads native inference. Control starts it, talks to it over IPC
 * and may kill it at any time; without control it ends itself at once, so that no two hosts ever share a camera.
 */
let inference: Inference | undefined;
/** In a process that was started for a candidate. */
let candidate: ShadowCandidate | undefined;
let beating: NodeJS.Timeout | undefined;
/** Of the requests in hand, by their number. */
const cancels = new Map<number, AbortController>();

process.on("message", (message: ControlMessage, handle: unknown) => {
  void receive(message, handle);
});
// A native run cannot be interrupted and an orderly exit would wait for it: an orphan goes at once.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
// Ctrl-C and whoever stops a whole group of processes reach this one as well; it is control that says when to stop.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => undefined);

async function receive(message: ControlMessage, handle: unknown): Promise<void> {
  switch (message.kind) {
    case "start": {
      const options = { start: message, send, clock: systemClock, random: Math.random, onDead };
      const started = new Inference(options);
      inference = started;
      await send({ kind: "ready", lanes: await started.start() });
      return;
    }
    case "policy":
      inference?.setPolicy(message.sampling, message.profileIntervalSeconds);
      return;
    case "request":
      return answer(message.id, message.request, handle);
    case "cancel":
      cancels.get(message.id)?.abort();
      return;
    case "stop":
      await inference?.stop();
      clearInterval(beating);
      await candidate?.close();
      await send({ kind: "stopped" });
      process.removeAllListeners("disconnect");
      process.disconnect();
      return;
  }
}

/** Control sees the end, says why in its log, and starts the next one. */
function onDead({ code, message }: FieldloopError): void {
  process.stderr.write(`${code}: ${message}\n`);
  process.exit(1);
}

/** `handle`: what came with the request. */
async function answer(id: number, request: ControlRequest, handle: unknown): Promise<void> {
  const cancel = new AbortController();
  cancels.set(id, cancel);
  try {
    await send({ kind: "response", id, value: await carryOut(request, cancel.signal, handle) });
  } catch (error) {
    await send({ kind: "refused", id, failure: failureOf(error) });
  } finally {
    cancels.delete(id);
  }
}

async function carryOut(request: ControlRequest, signal: AbortSignal, handle: unknown): Promise<unknown> {
  switch (request.kind) {
    // These three in a process of their own: the one that runs frames never needs what they load.
    case "facts": {
      const { factsHere } = await import("./facts.js");
      return factsHere(request.directory, process.env);
    }
    case "self_test": {
      const { selfTest } = await import("./self-test.js");
      return selfTest(request, process.env);
    }
    case "shadow_open":
      return openCandidate(request);
    case "shadow_begin":
      await beginShadow(request, socketOf(handle));
      return {};
    case "shadow_end":
      await running().endShadow(request.lane);
      return {};
    case "activate":
      return running().activate(request.lane, request.package);
    case "reopen":
      return running().reopen(request.lane, request.package);
    case "deactivate":
      await running().deactivate(request.lane);
      return {};
    case "capture":
      running().capture(request.count);
      return {};
    case "set_condition":
      running().setCondition(request.condition, request.lane);
      return { condition: request.condition };
    case "truth": {
      const label = running().truth(request.n);
      return label === undefined ? undefined : { label };
    }
    case "infer":
      return running().local.infer(request, signal);
    case "load_model":
      await running().local.load(request.package);
      return {};
    case "unload_model":
      await running().local.unload(request);
      return {};
    case "model_metadata":
      return running().local.metadata(request);
    case "loaded_models":
      return running().local.list();
    case "predict":
      return running().predict(request.lane, request.frame, signal);
  }
}

async function openCandidate(request: ShadowOpenRequest): Promise<ShadowOpened> {
  const { ShadowCandidate } = await import("./shadow/candidate.js");
  const opened = await ShadowCandidate.open(request);
  candidate = opened;
  beating = setInterval(() => void send(opened.beat()), AGENT_LIMITS.heartbeatIntervalMs);
  opened.serve(new Socket({ fd: SHADOW_SOCKET_FD }));
  return opened.opened;
}

async function beginShadow(request: ShadowBeginRequest, socket: Socket): Promise<void> {
  try {
    await running().beginShadow(request, socket);
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

function socketOf(handle: unknown): Socket {
  if (handle instanceof Socket) return handle;
  throw new FieldloopError("internal", "Begin shadow: the socket to the candidate is missing");
}

function running(): Inference {
  if (!inference) throw new FieldloopError("conflict", "Ask host: it was not started");
  return inference;
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
