import { backendFor, openBareRunner } from "@fieldloop/runtime/node";
import { placeholderFeeds } from "@fieldloop/runtime";

/**
 * Entry of a process that times one execution provider beside bare onnxruntime-node on the CPU, in turns, so that both meet the
 * same state of the machine. Arguments: provider, model file, seconds. Prints both medians in milliseconds as JSON.
 */
const BLOCK_MS = 100;
const WARM_UP_RUNS = 3;

const [executionProvider = "cpu", path = "", seconds = "2"] = process.argv.slice(2);
const backend = await backendFor(executionProvider);
const session = await backend.openSession(path, { threadCount: 1, executionProvider });
const feeds = placeholderFeeds(session.inputs);
const outputs = session.outputs.map((info) => info.name);
const bare = await openBareRunner(path, { threadCount: 1, executionProvider: "cpu" }, feeds, outputs);
const ours = (): Promise<unknown> => session.run(feeds);
try {
  for (let run = 0; run < WARM_UP_RUNS; run++) await Promise.all([bare.run(), ours()]);
  const bareMs: number[] = [];
  const oursMs: number[] = [];
  const end = performance.now() + Number(seconds) * 1000;
  while (performance.now() < end) {
    await block(bare.run, bareMs);
    await block(ours, oursMs);
  }
  process.stdout.write(JSON.stringify({ bareMs: median(bareMs), oursMs: median(oursMs) }));
} finally {
  await bare.release();
  await session.release();
}

async function block(run: () => Promise<unknown>, into: number[]): Promise<void> {
  const end = performance.now() + BLOCK_MS;
  do {
    const start = performance.now();
    await run();
    into.push(performance.now() - start);
  } while (performance.now() < end);
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
