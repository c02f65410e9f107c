import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { applyDeltaTo } from "@fieldloop/runtime/delta";

/** Child process: rebuilds a file from a base and a delta, and says what that cost. Arguments: base, delta. */
const [basePath = "", deltaPath = ""] = process.argv.slice(2);
const before = process.memoryUsage.rss();
const begin = performance.now();
const delta = new Uint8Array(await readFile(deltaPath));
let bytes = 0;
await applyDeltaTo(basePath, delta, (chunk) => {
  bytes += chunk.length;
});
const seconds = (performance.now() - begin) / 1000;
process.stdout.write(JSON.stringify({ bytes, seconds, extraBytes: peakRssBytes() - before }));

/** proc(5), `VmHWM`: of this program alone. What getrusage(2) says was that of the process it was started from, too. */
function peakRssBytes(): number {
  const kilobytes = /VmHWM:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
  return kilobytes === undefined ? Number.NaN : Number(kilobytes) * 1024;
}
