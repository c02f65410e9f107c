import { defineConfig } from "vitest/config";

/** Tests run as compiled JavaScript, so that worker threads and child processes are the ones that ship. */
export default defineConfig({
  test: {
    include: ["*/dist/**/*.test.js"],
    exclude: ["**/node_modules/**", "fleet-server/dist/console*/**"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 20_000,
    hookTimeout: 30_000,
  },
});
