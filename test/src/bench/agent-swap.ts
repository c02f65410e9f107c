import { cp, readFile, writeFile } from "node:fs/promises";
import { Agent, request } from "node:http";
import { constants, setPriority } from "node:os";
import { join } from "node:path";
import type { ModelVersion } from "@fieldloop/protocol";
import { encodeJpeg, openPackage, type ModelPackage } from "@fieldloop/runtime/node";
import { createPartsScene } from "@fieldloop/runtime/simulate";
import { AgentProgram, type ServerProgram } from "../kit/fleet.js";
import { freePort } from "../kit/proxy.js";
import { until } from "../kit/wait.js";
import { progress, type Figure } from "./report.js";

const FPS = 60;
const SWAPS = 10;
const QUICK_SWAPS = 3;
/** Frames as usual before each swap. */
const STEADY_MS = 3_000;
/** What a start leaves to do (compiling what is used often, the first full collection of garbage) is over by then. */
const WARM_MS = 15_000;
const STEP_MS = 90_000;
const SOCKETS = 8;

interface SwapOptions {
  readonly folder: string;
  /** A device that runs `version`. */
  readonly device: string;
  readonly server: ServerProgram;
  readonly made: ModelPackage;
  readonly version: ModelVersion;
  readonly quick: boolean;
}

/**
 * Swaps between two versions while a program sends camera frames at a fixed rate, whatever becomes of the ones before. The latency of a
 * frame is from the moment at which it was due to the moment at which its prediction is with whoever sent it; a frame without a
 * prediction is lost.
 */
export async function measureSwaps(options: SwapOptions): Promise<Figure[]> {
  const { folder, device, server, made, version, quick } = options;
  const port = await freePort();
  const agent = new AgentProgram({ folder, device, source: `http:${port}` });
  await agent.start();
  // A server is another machine: here it takes the time that is left over.
  setPriority(server.pid, constants.priority.PRIORITY_LOW);
  const next = await server.publish(await nextVersion(folder, made));
  const images = await frames();
  await until("the source is open", () => post(port, images[0]!).catch(() => false), { timeoutMs: STEP_MS });
  const camera = new Camera(port, images);
  camera.start();
  await sleep(WARM_MS);
  const steady: number[] = [];
  const swapping: number[] = [];
  camera.into(steady);
  let lostSwapping = 0;
  const swaps = quick ? QUICK_SWAPS : SWAPS;
  for (let swap = 1; swap <= swaps; swap++) {
    progress(`swap ${swap} of ${swaps} at ${FPS} frames a second`);
    await sleep(STEADY_MS);
    camera.into(swapping);
    const before = camera.lost;
    await rollOut(swap % 2 === 1 ? next : version);
    lostSwapping += camera.lost - before;
    camera.into(steady);
  }
  await camera.stop();
  await agent.stop();
  const p99 = quantile(steady, 0.99);
  return [
    {
      id: "swap_frames_lost",
      what: `frames without a prediction during ${swaps} swaps at ${FPS} fps`,
      value: lostSwapping,
      unit: "",
      peer: { what: `between swaps, of ${camera.sent} in all`, value: camera.lost - lostSwapping },
      bar: { at: "most", value: 0 },
    },
    {
      id: "swap_worst_frame",
      what: `longest of ${swapping.length} frames while a version was fetched, tested, loaded and swapped: due → answered`,
      value: Math.max(...swapping),
      unit: "ms",
      peer: { what: `ms between swaps, 99th percentile of ${steady.length}`, value: p99 },
      bar: { at: "most", value: 2 * p99 },
    },
    {
      id: "swap_frame_p99",
      what: "the same, 99th percentile",
      value: quantile(swapping, 0.99),
      unit: "ms",
      peer: { what: "ms, the longest between swaps", value: Math.max(...steady) },
    },
  ];

  async function rollOut(to: ModelVersion): Promise<void> {
    const { rollout } = await server.rollOut(to, [device]);
    const view = await server.settled(rollout, STEP_MS);
    if (view.state !== "succeeded") throw new Error(`Roll parts@${to.version} out: it is ${view.state}`);
  }
}

/** Sends a frame each time that one is due, without waiting for the answers. */
class Camera {
  readonly #port: number;
  readonly #frames: readonly Uint8Array[];
  readonly #sockets = new Agent({ keepAlive: true, maxSockets: SOCKETS });
  readonly #open = new Set<Promise<void>>();
  #latencies: number[] = [];
  #timer: NodeJS.Timeout | undefined;
  #from = 0;
  sent = 0;
  lost = 0;

  constructor(port: number, images: readonly Uint8Array[]) {
    this.#port = port;
    this.#frames = images;
  }

  start(): void {
    this.#from = performance.now();
    this.#next();
  }

  /** Where the latencies of frames go that are due from now on. */
  into(latencies: number[]): void {
    this.#latencies = latencies;
  }

  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    await Promise.all(this.#open);
    this.#sockets.destroy();
  }

  #next(): void {
    const dueMs = this.#from + (this.sent * 1000) / FPS;
    this.#timer = setTimeout(
      () => {
        const sending = this.#send(dueMs, this.#latencies).finally(() => this.#open.delete(sending));
        this.#open.add(sending);
        this.#next();
      },
      Math.max(0, dueMs - performance.now()),
    );
  }

  async #send(dueMs: number, latencies: number[]): Promise<void> {
    const body = this.#frames[this.sent++ % this.#frames.length]!;
    const isPredicted = await post(this.#port, body, this.#sockets).catch(() => false);
    if (isPredicted) latencies.push(performance.now() - dueMs);
    else this.lost++;
  }
}

/** True where the answer is a prediction. */
function post(port: number, body: Uint8Array, agent?: Agent): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "image/jpeg", "content-length": body.length };
    const call = request({ host: "127.0.0.1", port, method: "POST", agent, headers }, (response) => {
      response.resume();
      response.once("error", reject);
      response.once("end", () => resolve(response.statusCode === 200));
    });
    call.once("error", reject);
    call.end(body);
  });
}

async function frames(): Promise<Uint8Array[]> {
  const scene = createPartsScene({ seed: 7 });
  const images: Uint8Array[] = [];
  for (let at = 0; at < 32; at++) {
    const { pixels, width, height } = scene.next();
    images.push(await encodeJpeg({ kind: "pixels", data: pixels, width, height, channels: 3 }, 90));
  }
  return images;
}

/** The same package under the next number. */
async function nextVersion(folder: string, made: ModelPackage): Promise<ModelPackage> {
  const directory = join(folder, "parts-next");
  await cp(made.dir, directory, { recursive: true });
  const path = join(directory, "manifest.json");
  const manifest = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
  await writeFile(path, JSON.stringify({ ...manifest, version: made.manifest.version + 1 }));
  return openPackage(directory);
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
