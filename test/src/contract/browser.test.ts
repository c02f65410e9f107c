import { chromium, type Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CONTRACT_CASES, type ContractResult } from "@fieldloop/runtime/contract";
import { closeBrowser, whyNoBrowser } from "../console/browser.js";
import { servePage } from "./page-server.js";
import type { ContractPage } from "./page.js";
import { NO_HALF_FLOATS, expectHeld } from "./results.js";

/** WebGPU through software Vulkan; everything else as the console's tests have it. */
const ARGUMENTS = [
  "--headless",
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--enable-features=Vulkan",
  // Of ONNX Runtime's 25 MB what is called is compiled, once and plainly: nothing here runs long enough to win the rest back.
  "--js-flags=--wasm-lazy-compilation --liftoff-only",
];
if (whyNoBrowser !== undefined)
  process.stdout.write(`skipped: backend contract in Chromium: ${whyNoBrowser}\n`);

describe.skipIf(whyNoBrowser !== undefined)("backend contract in Chromium", () => {
  let server: Awaited<ReturnType<typeof servePage>>;
  let browser: Browser;
  beforeAll(async () => {
    [server, browser] = await Promise.all([
      servePage(),
      chromium.launch({ executablePath: "/usr/bin/chromium", args: ARGUMENTS }),
    ]);
  }, 120_000);
  afterAll(async () => {
    await closeBrowser(browser);
    await server?.stop();
  });

  for (const { executionProvider, threadCount } of [
    { executionProvider: "wasm", threadCount: 2 },
    { executionProvider: "webgpu", threadCount: 1 },
  ]) {
    describe(executionProvider, () => {
      let results: readonly ContractResult[] = [];
      beforeAll(async () => {
        const page = await browser.newPage();
        await page.goto(server.url);
        results = await page.evaluate(
          ([provider, threads]) =>
            (globalThis as typeof globalThis & { contractPage: ContractPage }).contractPage.runOn(
              provider as string,
              threads as number,
            ),
          [executionProvider, threadCount] as const,
        );
        await page.close();
      }, 180_000);

      it.each(CONTRACT_CASES)("$name", ({ name }) => expectHeld(results, name, NO_HALF_FLOATS));
      it("ran every case", () => expect(results).toHaveLength(CONTRACT_CASES.length));
    });
  }
});
