import { cp, readFile, writeFile } from "node:fs/promises";
import { type ChildProcess, execFile, fork } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import type { ModelVersion } from "@fieldloop/protocol";
import { openPackage, type ModelPackage } from "@fieldloop/runtime/node";
import { AgentProgram, type ServerProgram } from "../kit/fleet.js";
import { freePort } from "../kit/proxy.js";
import { median, progress, type Figure } from "./report.js";
import type { CameraNews, CameraOrder, CameraReport, Frame } from "./swap-camera.js";

const FPS = 60;
const SWAPS = 10;
const QUICK_SWAPS = 3;
/** Frames as usual before each swap. */
const STEADY_MS = 3_000;
/** What a start leaves to do (compiling what is used often, the first full collection of garbage) is over by then. */
const WARM_MS = 15_000;
const STEP_MS = 90_000;
/** A timer is late by one or two, and a kernel in the middle of something keeps even a real-time thread waiting for some. */
const STALL_MS = 5;

type Phase = "warm" | "steady" | "swapping";

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
  await schedule(["--all-tasks", "--idle"], 0, server.pid);
  // Programs of different sessions share the processor as groups, sched(7): the policy of one counts among its own only.
  await writeFile(`/proc/${server.pid}/autogroup`, "19").catch(() => undefined);
  const next = await server.publish(await nextVersion(folder, made));
  const camera = await CameraProcess.start(port);
  await sleep(WARM_MS);
  const swaps = quick ? QUICK_SWAPS : SWAPS;
  for (let swap = 1; swap <= swaps; swap++) {
    progress(`swap ${swap} of ${swaps} at ${FPS} frames a second`);
    camera.phase("steady");
    await sleep(STEADY_MS);
    camera.phase("swapping");
    await rollOut(swap % 2 === 1 ? next : version);
  }
  const { phases } = await camera.stop();
  await agent.stop();
  const stalls = camera.isPunctual ? stallsOf(Object.values(phases).flatMap(({ frames }) => frames)) : [];
  const steady = latenciesOf(phases["steady"]!.frames, stalls);
  const swapping = latenciesOf(phases["swapping"]!.frames, stalls);
  const inStalls = phases["swapping"]!.frames.length - swapping.length;
  const longest = Math.max(0, ...stalls.map(({ due, sent }) => sent - due));
  const aside =
    inStalls === 0 ? "" : `; ${inStalls} more met the machine standing still, up to ${longest.toFixed(0)} ms`;
  const p99 = median(steady, 0.99);
  return [
    {
      id: "swap_frames_lost",
      what: `frames without a prediction during ${swaps} swaps at ${FPS} fps`,
      value: phases["swapping"]!.lost,
      unit: "",
      peer: { what: `between swaps, of ${phases["steady"]!.frames.length}`, value: phases["steady"]!.lost },
      bar: { at: "most", value: 0 },
    },
    {
      id: "swap_worst_frame",
      what: `longest of ${swapping.length} frames while a version was fetched, tested, loaded and swapped: due → answered${aside}`,
      value: Math.max(...swapping),
      unit: "ms",
      peer: { what: `ms between swaps, 99th percentile of ${steady.length}`, value: p99 },
      bar: { at: "most", value: 2 * p99 },
    },
    {
      id: "swap_frame_p99",
      what: "the same, 99th percentile",
      value: median(swapping, 0.99),
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

/**
 * Frames that a camera of real-time priority sent late: from due to sent the machine itself stood still (a virtual one whose host had other
 * things to do), and no program could have been on time.
 */
function stallsOf(frames: readonly Frame[]): Frame[] {
  return frames.filter(({ due, sent }) => sent - due > STALL_MS);
}

/** Milliseconds from due to answered, of the frames during which the machine itself did not stand still. */
function latenciesOf(frames: readonly Frame[], stalls: readonly Frame[]): number[] {
  const isStalled = (frame: Frame): boolean =>
    stalls.some(({ due, sent }) => due < frame.answered && sent > frame.due);
  return frames.filter((frame) => !isStalled(frame)).map(({ due, answered }) => answered - due);
}

/** The camera in a process of its own, as {@link CameraOrder} tells it. */
class CameraProcess {
  /** No other program can make it late. */
  readonly isPunctual: boolean;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, isPunctual: boolean) {
    this.#child = child;
    this.isPunctual = isPunctual;
  }

  /** Resolves when it shoots. */
  static async start(port: number): Promise<CameraProcess> {
    const child = fork(new URL("./swap-camera.js", import.meta.url));
    await heard(child, (news) => news === "ready");
    // A camera is hardware and waits for nobody's processor.
    const camera = new CameraProcess(child, await schedule(["--fifo"], 1, child.pid!));
    camera.phase("warm");
    camera.#tell({ kind: "shoot", port, fps: FPS });
    await heard(child, (news) => news === "shooting");
    return camera;
  }

  phase(phase: Phase): void {
    this.#tell({ kind: "phase", phase });
  }

  async stop(): Promise<CameraReport> {
    this.#tell({ kind: "stop" });
    return (await heard(this.#child, (news) => typeof news === "object")) as CameraReport;
  }

  #tell(order: CameraOrder): void {
    this.#child.send(order);
  }
}

function heard(camera: ChildProcess, wanted: (news: CameraNews) => boolean): Promise<CameraNews> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null): void => reject(new Error(`The camera ended with code ${code}`));
    const hear = (news: CameraNews): void => {
      if (!wanted(news)) return;
      camera.off("message", hear);
      camera.off("exit", ended);
      resolve(news);
    };
    camera.on("message", hear);
    camera.once("exit", ended);
  });
}

/** Gives a process another scheduling policy by chrt(1); false where the system does not let us. */
async function schedule(policy: readonly string[], priority: number, pid: number): Promise<boolean> {
  const args = [...policy, "--pid", String(priority), String(pid)];
  try {
    await promisify(execFile)("chrt", args);
    return true;
  } catch {
    progress(`measured without chrt ${args.join(" ")}: what else runs here counts as well`);
    return false;
  }
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

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
