import { writeSync } from "node:fs";
import { join } from "node:path";
import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { Worker } from "node:worker_threads";
import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { placeholderFeeds } from "../feeds.js";
import { tensorFromBytes } from "../package/tensor-bytes.js";
import { probeBuiltIn } from "./probe-built-in.js";
import type { ProbeReply, ProbeRequest } from "./probe-messages.js";

/** Entry of a probing process: one request on standard input, one answer on file descriptor 3, then it ends. */

/** Timed runs stop after this time even if fewer than asked for are done. */
const TIMED_MS_MAX = 4_000;
const WARM_UP_RUNS = 2;

async function answer(request: ProbeRequest): Promise<ProbeReply> {
  switch (request.kind) {
    case "package":
      return await probePackage(request);
    case "built-in":
      return await probeBuiltIn(request.executionProvider);
    case "library": {
      const { ortNode } = await import("./ort.js");
      const works = { works: true, correct: true, medianMs: null, shares: null, version: ortNode.version };
      const libraryPath = await loadedLibrary();
      return libraryPath === undefined ? works : { ...works, libraryPath };
    }
  }
}

/** The ONNX Runtime that this process has in its memory (proc(5), `maps`). */
async function loadedLibrary(): Promise<string | undefined> {
  const maps = await readFile("/proc/self/maps", "utf8").catch(() => "");
  return /\S*libonnxruntime\.so\S*/.exec(maps)?.[0];
}

async function probePackage(request: Extract<ProbeRequest, { kind: "package" }>): Promise<ProbeReply> {
  const [{ openPackage }, { openModel }, { checkGolden }] = await Promise.all([
    import("./package.js"),
    import("./model.js"),
    import("./golden.js"),
  ]);
  const { executionProvider, variant, threadCount, runsMax } = request;
  const pkg = await openPackage(request.packageDir, { purpose: "running", verifyFiles: false });
  const model = await openModel(pkg, { executionProvider, variant, threadCount });
  try {
    const feeds = await firstFeeds(pkg.dir, pkg.manifest.golden[0]?.inputs, () =>
      placeholderFeeds(model.session.inputs),
    );
    const golden = await checkGolden(model).then(
      ({ cases }) => (cases === 0 ? checkFinite(() => model.session.run(feeds)) : undefined),
      (error: unknown) => toFieldloopError(error),
    );
    if (golden !== undefined && golden.code !== "golden_case_failed") throw golden;
    const medianMs = await medianOf(() => model.session.run(feeds), runsMax);
    // The shares are worth knowing, but no reason to refuse a provider that gives the right results.
    const shares = (await model.session.providerShares?.(feeds).catch(() => undefined)) ?? null;
    return {
      works: true,
      correct: golden === undefined,
      medianMs,
      shares,
      ...(golden === undefined ? {} : { reason: { code: golden.code, message: golden.message } }),
    };
  } finally {
    await model.release();
  }
}

/** Without golden cases a wrong result is not known as one, unless it is no number at all. */
async function checkFinite(run: () => Promise<Record<string, Tensor>>): Promise<FieldloopError | undefined> {
  for (const [name, { type, data }] of Object.entries(await run())) {
    if ((type !== "float32" && type !== "float64") || Array.isArray(data)) continue;
    const at = data.findIndex((value: number | bigint) => !Number.isFinite(Number(value)));
    if (at === -1) continue;
    return new FieldloopError(
      "golden_case_failed",
      `Check model without golden cases: ${name}[${at}] is ${String(data[at])}, wanted finite numbers`,
    );
  }
  return undefined;
}

async function firstFeeds(
  dir: string,
  inputs:
    | readonly { name: string; file: string; elementType: Tensor["type"]; dims: readonly number[] }[]
    | undefined,
  otherwise: () => Record<string, Tensor>,
): Promise<Record<string, Tensor>> {
  if (inputs === undefined) return otherwise();
  const feeds: Record<string, Tensor> = {};
  for (const input of inputs) {
    feeds[input.name] = tensorFromBytes(
      input.elementType,
      [...input.dims],
      await readFile(join(dir, input.file)),
    );
  }
  return feeds;
}

async function medianOf(run: () => Promise<unknown>, runsMax: number): Promise<number> {
  for (let warm = 0; warm < WARM_UP_RUNS; warm++) await run();
  const times: number[] = [];
  const begin = performance.now();
  while (times.length < runsMax && (times.length === 0 || performance.now() - begin < TIMED_MS_MAX)) {
    const start = performance.now();
    await run();
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[Math.floor(times.length / 2)]!;
}

function failure(error: unknown): ProbeReply {
  const { code, message } = toFieldloopError(error);
  return { works: false, correct: false, medianMs: null, shares: null, reason: { code, message } };
}

// A driver may hang for ever: whoever would kill this process for it may be gone. Memory is the parent's to watch.
const watch = new Worker(new URL("./scratch-watch.js", import.meta.url), {
  workerData: { rssBytesMax: Number.POSITIVE_INFINITY, parent: Number(process.argv[2]) },
  execArgv: [],
});
watch.unref();
const request = JSON.parse(await text(process.stdin)) as ProbeRequest;
const reply = await answer(request).catch(failure);
writeSync(3, JSON.stringify(reply));
