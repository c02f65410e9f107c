import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { createAgentLog, HostProcess, parseLaneSpec } from "@fieldloop/device-agent";
import { encodeModel, float32Tensor, GraphBuilder } from "@fieldloop/runtime";
import { writePackage, type ModelPackage } from "@fieldloop/runtime/node";
import { usageOf } from "../kit/processes.js";
import { progress, type Figure } from "./report.js";

const FRAMES = 1_000_000;
const SWAPS = 500;
const QUICK_SHARE = 0.1;
/** The host's memory is compared from here on: what is loaded once is loaded. */
const FROM_SHARE = 0.1;
const ROWS = 2_000;
const BATCH = 16;
/** Readings around a moment, whose median counts. */
const READINGS = 9;
const READING_EVERY_MS = 40;
const STEP_MS = 60_000;
const GROWTH_MAX = 10;
const BUILT_HOST = new URL("../../../cli/dist/bundle/host-main.js", import.meta.url);

/**
 * A day's work in minutes: one inference host, the process that the agent starts, with frames as fast as it takes them, and two versions
 * that take turns. It is driven over the messages that control sends it; its answers are counted and let go.
 */
export async function measureSoak(folder: string, quick: boolean): Promise<Figure[]> {
  const share = quick ? QUICK_SHARE : 1;
  const frames = FRAMES * share;
  const swaps = SWAPS * share;
  const soak = await Soak.start(folder);
  try {
    await soak.reaches(frames * FROM_SHARE * 0.5);
    let early: number | undefined;
    const begin = performance.now();
    const from = soak.frames;
    for (let swap = 1; swap <= swaps; swap++) {
      await soak.reaches((frames * swap) / swaps);
      await soak.swap(swap);
      if (swap % (swaps / 10) === 0) {
        const residentMb = await soak.residentMb();
        early ??= residentMb;
        progress(`soak: ${soak.frames} frames, ${swap} swaps, ${residentMb.toFixed(1)} MB resident`);
      }
    }
    const perSecond = ((soak.frames - from) / (performance.now() - begin)) * 1000;
    const late = await soak.residentMb();
    return [
      {
        id: "soak_growth",
        what: `resident memory of the host after ${swaps} swaps and ${frames} frames, against a tenth of them`,
        value: (late / early! - 1) * 100,
        unit: "%",
        peer: { what: "MB at a tenth", value: early! },
        bar: { at: "most", value: GROWTH_MAX },
      },
      { id: "soak_rss", what: "resident memory of the host at the end", value: late, unit: "MB" },
      { id: "soak_rate", what: "frames of that soak, with its swaps", value: perSecond, unit: "/s" },
      {
        id: "soak_lost",
        what: "frames of that soak dropped, failed, or numbered with a gap",
        value: soak.lost,
        unit: "",
        bar: { at: "most", value: 0 },
      },
    ];
  } finally {
    await soak.stop();
  }
}

class Soak {
  readonly #host: HostProcess;
  readonly #packages: readonly ModelPackage[];
  #frames = 0;
  #gaps = 0;
  #dropped = 0;
  #failed = 0;
  #trouble: string | undefined;
  #isReady = false;

  private constructor(packages: readonly ModelPackage[], workingDirectory: string) {
    this.#packages = packages;
    this.#host = new HostProcess({
      workingDirectory,
      env: process.env,
      log: createAgentLog({ level: "error", write: () => undefined }),
      ...(existsSync(BUILT_HOST) ? { entry: BUILT_HOST } : {}),
    });
    this.#host.onMessage = (message) => {
      if (message.kind === "ready") this.#isReady = true;
      if (message.kind === "warning" && message.active) this.#trouble = message.failure.message;
      if (message.kind === "predictions") {
        // Numbers follow on where no frame's prediction is missing.
        if (message.firstN !== this.#frames) this.#gaps++;
        this.#frames = message.firstN + message.rows.length;
      }
      if (message.kind === "heartbeat") {
        this.#dropped = message.lanes[0]!.framesDropped;
        this.#failed = message.lanes[0]!.framesFailed;
      }
    };
    void this.#host.ended.then((how) => (this.#trouble = `the host ended: ${how}`));
  }

  static async start(parent: string): Promise<Soak> {
    const folder = join(parent, "soak");
    const empty = join(folder, "empty");
    await mkdir(empty, { recursive: true });
    const rows = join(folder, "rows.csv");
    await writeFile(rows, rowsText());
    const packages = [await writeRowPackage(folder, 1), await writeRowPackage(folder, 2)];
    const soak = new Soak(packages, empty);
    soak.#host.send({
      kind: "start",
      device: "soak",
      boot: 1,
      lanes: [
        {
          spec: parseLaneSpec(`csv:${rows}?loop=1&pace=none&drop=wait&batch=${BATCH}`),
          package: soak.#target(0),
          numbers: { next: 0, end: 0 },
          frameMarkPath: join(folder, "frame.mark"),
        },
      ],
      nextBlock: 0,
      sampling: { bytesPerHour: 0, randomShare: 0, worthMin: 1, worthPerMinute: 0 },
      profileIntervalSeconds: 10,
      quarantined: [],
      suspects: [],
      threadCount: 1,
      thermalPath: undefined,
      governorTimes: undefined,
    });
    await soak.#until(() => soak.#isReady);
    return soak;
  }

  get frames(): number {
    return this.#frames;
  }

  get lost(): number {
    return this.#dropped + this.#failed + this.#gaps;
  }

  async reaches(frames: number): Promise<void> {
    await this.#until(() => this.#frames >= frames);
  }

  async swap(count: number): Promise<void> {
    await this.#host.request({ kind: "activate", lane: "main", package: this.#target(count % 2) }, STEP_MS);
  }

  async residentMb(): Promise<number> {
    const readings: number[] = [];
    for (let reading = 0; reading < READINGS; reading++) {
      readings.push(usageOf(this.#host.pid!).residentBytes / 1e6);
      await sleep(READING_EVERY_MS);
    }
    return readings.toSorted((a, b) => a - b)[Math.floor(READINGS / 2)]!;
  }

  async stop(): Promise<void> {
    this.#host.send({ kind: "stop" });
    const timer = setTimeout(() => this.#host.kill(), STEP_MS / 6);
    await this.#host.ended;
    clearTimeout(timer);
  }

  #target(index: number): { directory: string; packageSha256: string } {
    const { dir, packageSha256 } = this.#packages[index]!;
    return { directory: dir, packageSha256 };
  }

  async #until(isThere: () => boolean): Promise<void> {
    let deadline = performance.now() + STEP_MS;
    let seen = this.#frames;
    while (!isThere()) {
      if (this.#trouble !== undefined) throw new Error(`Soak: ${this.#trouble}`);
      if (this.#frames > seen) deadline = performance.now() + STEP_MS;
      seen = this.#frames;
      if (performance.now() > deadline) throw new Error(`Soak: no frame in ${STEP_MS} ms`);
      await sleep(5);
    }
  }
}

const COLUMNS = ["a", "b", "c", "d"] as const;

function rowsText(): string {
  const rows = Array.from({ length: ROWS }, (_, at) =>
    COLUMNS.map((_name, column) => Math.sin(at * (column + 1)).toFixed(4)).join(","),
  );
  return `${COLUMNS.join(",")}\n${rows.join("\n")}\n`;
}

/** A classifier of rows with one hidden layer: real, and small enough that a day's frames take minutes. */
async function writeRowPackage(folder: string, version: number): Promise<ModelPackage> {
  const graph = new GraphBuilder();
  const rows = graph.input("rows", "float32", ["n", COLUMNS.length]);
  const weight = (name: string, seed: number): string =>
    graph.initializer(
      float32Tensor(
        name,
        [4, 4],
        Float32Array.from({ length: 16 }, (_, at) => Math.sin(seed + at)),
      ),
    );
  const [hidden] = graph.node("MatMul", [rows, weight("first", version)]);
  const [active] = graph.node("Relu", [hidden!]);
  graph.node("MatMul", [active!, weight("second", version + 10)], {}, ["logits"]);
  graph.output("logits", "float32", ["n", 4]);
  const columns = COLUMNS.map((name) => ({ name, encoding: { kind: "number" } as const }));
  return writePackage(
    join(folder, `rows-${version}`),
    {
      schema: 1,
      model: "rows",
      version,
      created: "2026-11-20T00:00:00Z",
      task: "classification",
      licence: "Apache-2.0",
      inputs: [{ kind: "table", name: "rows", columns, dims: [0, 4] }],
      heads: [
        { name: "class", kind: "classification", output: "logits", labels: [...COLUMNS], values: "logits" },
      ],
      signals: ["margin", "entropy"],
      variants: [
        { name: "fp32", file: "model.onnx", precision: "fp32", opset: 17, executionProviders: ["cpu"] },
      ],
      lineage: { base: null, snapshot: null, trainer: "by hand", settings: {}, libraries: {}, metrics: {} },
    },
    { "model.onnx": encodeModel(graph.build({ opset: 17 })) },
  );
}
