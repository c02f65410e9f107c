import { defineConfig } from "vitest/config";
import { LongestFirst } from "./test/dist/kit/longest-first.js";
import { memoryFolder } from "./test/dist/kit/memory-folder.js";

// Output is compared as text, whatever terminal or pipeline runs the tests.
delete process.env["FORCE_COLOR"];
process.env["NO_COLOR"] = "1";
// Where tests write, unless somebody names a place.
const folder = process.env["TMPDIR"] === undefined ? memoryFolder() : undefined;
if (folder !== undefined) {
  process.env["TMPDIR"] = folder;
  process.env["FIELDLOOP_TEST_RUN_FOLDER"] = folder;
}

/** Tests run as compiled JavaScript, and the worker threads and child processes of what they test are the ones that ship. */
export default defineConfig({
  test: {
    include: ["*/dist/**/*.test.js"],
    exclude: ["**/node_modules/**", "fleet-server/dist/console*/**"],
    pool: "forks",
    // Node loads them as it does for people: vite would rewrite each of a thousand files in every run.
    server: { deps: { external: [/\/dist\/(?!.*\.(test|setup)\.js$)/] } },
    setupFiles: ["driver", "properties"].map(
      (name) => new URL(`./test/dist/kit/${name}.setup.js`, import.meta.url).pathname,
    ),
    // One more than two processors: half of the tests wait for something now and then.
    maxWorkers: 3,
    sequence: { sequencer: LongestFirst },
    execArgv: ["--import", new URL("./test/dist/kit/bundled-children.js", import.meta.url).href],
    // Modules are loaded once a worker and not once a file: half of the time of small tests. No test changes what a module keeps.
    isolate: false,
    // Many times what a test takes: it ends one that hangs, and says nothing of how fast a loaded machine is.
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
