import { defineConfig } from "vitest/config";

/** Tests run as compiled JavaScript, so that worker threads and child processes are the ones that ship. */
export default defineConfig({
  test: {
    include: ["*/dist/**/*.test.js"],
    exclude: ["**/node_modules/**", "fleet-server/dist/console*/**"],
    pool: "forks",
    maxWorkers: 2,
    // Many times what a test takes: it ends one that hangs, and says nothing of how fast a loaded machine is.
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
