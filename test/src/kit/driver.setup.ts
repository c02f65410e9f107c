import { expect } from "vitest";
import { isDriverCompiling, wantsDriver } from "./driver.js";
import { until } from "./wait.js";

/** Before each file of tests, and in none of their time: the SQLite driver is there, or not wanted. */
const COMPILE_TIMEOUT_MS = 1_800_000;

if (wantsDriver(expect.getState().testPath ?? "")) {
  await until("the SQLite driver is compiled", () => !isDriverCompiling(), {
    timeoutMs: COMPILE_TIMEOUT_MS,
    everyMs: 200,
  });
}
