import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { RolloutView, SampleView, TrainingRun } from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { randomOf, testSeed } from "../kit/random.js";
import { isThorough } from "../kit/thorough.js";
import { until } from "../kit/wait.js";
import {
  closeBrowser,
  emptied,
  openBrowser,
  openPage,
  overflowOf,
  type WatchedPage,
  whyNoBrowser,
} from "./browser.js";
import {
  allSamples,
  consoleDir,
  type Fleet,
  publishShapes,
  seedDevice,
  type SeededDevice,
  startFleet,
} from "./seed.js";

const notBuilt = existsSync(join(consoleDir, "index.html"))
  ? undefined
  : "the console is not built: npx vite build fleet-server/console";
const skipped = whyNoBrowser ?? notBuilt;
if (skipped) console.warn(`console tests are skipped: ${skipped}`);

const SCRIPT_BYTES_MAX = 80_000;
const STYLE_BYTES_MAX = 20_000;
const poll = <Value>(probe: () => Value) => expect.poll(probe, { timeout: 15_000 });
const DESKTOP = { width: 1400, height: 900 };
const LONG_NAME = "press-with-a-very-long-name-upper-left-station-1.2";

describe.skipIf(notBuilt !== undefined)("the built console", () => {
  const zipped = (ending: string) =>
    readdirSync(join(consoleDir, "assets"))
      .filter((name) => name.endsWith(ending))
      .reduce((sum, name) => sum + gzipSync(readFileSync(join(consoleDir, "assets", name))).length, 0);

  it("stays within its size, charts included", () => {
    expect(zipped(".js")).toBeLessThan(SCRIPT_BYTES_MAX);
    expect(zipped(".css")).toBeLessThan(STYLE_BYTES_MAX);
  });

  it("has nothing inline that the content policy refuses", () => {
    const html = readFileSync(join(consoleDir, "index.html"), "utf8");
    expect(html).not.toMatch(/<style|style="|<script(?![^>]*src=)| on\w+=/);
  });
});

/** What a window looks like, a desktop's in light colours where nothing else is said. */
interface Look {
  readonly colorScheme?: "light" | "dark";
  readonly viewport?: { readonly width: number; readonly height: number };
}

let browser: Browser;
beforeAll(async () => {
  if (skipped === undefined) browser = await openBrowser();
}, 120_000);
afterAll(() => closeBrowser(browser));

describe.skipIf(skipped !== undefined)("the console", { timeout: 300_000 }, () => {
  let fleet: Fleet;
  let window: WatchedPage | undefined;
  let made: ModelPackage;
  const devices: SeededDevice[] = [];

  beforeAll(async () => {
    fleet = await startFleet();
    made = await publishShapes(fleet);
    devices.push(
      await seedDevice(fleet, made, {
        device: "cam-lyon-01",
        tags: { site: "lyon" },
        samples: 24,
        right: 0.62,
      }),
      await seedDevice(fleet, made, {
        device: "cam-lyon-02",
        tags: { site: "lyon" },
        samples: 4,
        right: 0.93,
        warning: "The spool is at 93 % of its budget",
      }),
      await seedDevice(fleet, made, {
        device: LONG_NAME,
        tags: { site: "porto" },
        samples: 1,
        right: 0.97,
        window: true,
      }),
    );
  }, 120_000);

  afterAll(async () => {
    await window?.close();
    for (const device of devices) await device.end();
    await fleet?.end();
  });

  const at = (path: string) => fleet.server.httpUrl + path;
  const open = async (page: Page, path: string) => {
    await page.goto(at(path));
    await page.locator("h1").waitFor();
  };
  /**
   * A signed-in page: by a link, as the server prints it. To open a window costs more than most tests do in it: they have one, emptied of
   * all that the test before left in it.
   */
  const signedIn = async ({ colorScheme = "light", viewport = DESKTOP }: Look = {}) => {
    window ??= await openPage(browser);
    const { page, errors } = window;
    await emptied(page, fleet.server.httpUrl);
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize(viewport);
    await page.goto(at(`/fleet#token=${fleet.token}`));
    await page.getByRole("navigation", { name: "Main" }).waitFor();
    errors.length = 0;
    return { page, errors };
  };

  it("refuses an unknown token, signs in with the right one, and out again", async () => {
    const { page, close } = await openPage(browser);
    await open(page, "/rollouts");
    await page.getByLabel("Access token").fill("flt_unknown");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").getByText("unauthenticated").waitFor();
    await page.getByLabel("Access token").fill(fleet.token);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Rollouts" }).waitFor();
    expect(new URL(page.url()).pathname).toBe("/rollouts");
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Access token").waitFor();
    await page.reload();
    await page.getByLabel("Access token").waitFor();
    await close();
  });

  it("takes the token of a link and leaves none in the address", async () => {
    const { page } = await signedIn();
    expect(page.url()).toBe(at("/fleet"));
    await page.reload();
    await page.getByRole("cell", { name: "cam-lyon-01" }).waitFor();
  });

  it("shows the fleet, filters it by address and keys, and opens a device", async () => {
    const { page, errors } = await signedIn();
    await page.getByRole("button", { name: /Needs attention/ }).click();
    await poll(() => page.locator("tbody tr").count()).toBe(1);
    expect(page.url()).toContain("show=attention");
    await page.getByText("storage_full").waitFor();
    await page.getByRole("button", { name: /All/ }).click();
    await page.keyboard.press("/");
    await page.keyboard.type("site=lyon");
    await poll(() => page.locator("tbody tr").count()).toBe(2);
    await page.keyboard.press("Escape");
    await page.keyboard.press("j");
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "cam-lyon-01" }).waitFor();
    await page.getByRole("figure", { name: /Mean confidence/ }).waitFor();
    await page.keyboard.press("g");
    await page.keyboard.press("m");
    await page.getByRole("heading", { name: "Models" }).waitFor();
    await page.keyboard.press("?");
    await page.getByRole("dialog", { name: "Keys" }).getByRole("checkbox").uncheck();
    await page.keyboard.press("Escape");
    await page.keyboard.press("g");
    await page.keyboard.press("f");
    await poll(() => new URL(page.url()).pathname).toBe("/models");
    expect(errors).toEqual([]);
  });

  it("shows a device that comes while it is looked at", async () => {
    const { page, errors } = await signedIn();
    await page.getByRole("status").getByText("Live").waitFor();
    devices.push(await seedDevice(fleet, made, { device: "cam-late", tags: {}, samples: 0, right: 1 }));
    await page.getByRole("cell", { name: "cam-late" }).waitFor({ timeout: 12_000 });
    expect(errors).toEqual([]);
  });

  it("labels by keyboard: each key is a label on the server and shows the next sample", async () => {
    const { page, errors } = await signedIn();
    await open(page, "/failures?device=cam-lyon-01");
    const turn = page.getByRole("region", { name: "Sample in turn" });
    await turn.getByRole("button", { name: /bar/ }).waitFor();
    const byWorth = (await allSamples(fleet)).filter(({ device }) => device === "cam-lyon-01");
    const shown = await page.locator(".queue .sample-tile").count();
    expect(shown).toBe(24);
    await page.keyboard.press("2");
    await page.keyboard.press(" ");
    await page.keyboard.press("s");
    await page.keyboard.press("i");
    const now = (at: number) => fleet.api<SampleView>("GET", `/api/v1/samples/${byWorth[at]!.sample}`);
    await until(
      "the labels are on the server",
      async () => (await now(0)).annotation?.label === "ring" && (await now(1)).annotation?.label === "bar",
    );
    await until("the fourth is ignored", async () => (await now(3)).status === "ignored");
    expect((await now(0)).wrong).toBe("yes");
    expect((await now(2)).annotation).toBeNull();
    await page.keyboard.press("u");
    await until("the ignored one is back", async () => (await now(3)).status === "new");
    await page.keyboard.press("u");
    await page.keyboard.press("3");
    await until("a label replaces another", async () => (await now(1)).annotation?.label === "cross");
    await page.getByText("decided").waitFor();
    expect(new URL(page.url()).searchParams.get("sample")).toBe(byWorth[2]!.sample);
    expect(errors).toEqual([]);
  });

  it("fixes: from labels to a trained and evaluated candidate, and a rollout that can be aborted", async () => {
    const { page, errors } = await signedIn();
    await labelByTruth(fleet);
    await open(page, "/failures");
    await page.keyboard.press("f");
    const dialog = page.getByRole("dialog", { name: "Fix this" });
    await dialog.getByText("Training settings").click();
    await dialog.getByLabel("Steps").fill("60");
    await dialog.getByRole("button", { name: "Train a candidate" }).click();
    await page.waitForURL(/\/training\/trn_/);
    const run = new URL(page.url()).pathname.split("/").at(-1)!;
    const ended = await until("the run ends", () => ending(fleet, run), { timeoutMs: 120_000, everyMs: 200 });
    expect(ended).toMatchObject({ state: "succeeded", candidate: 2 });
    await page.getByRole("region", { name: "Evaluation of the candidate" }).waitFor();
    await page.getByRole("figure", { name: /Loss/ }).waitFor();
    await page.getByRole("link", { name: "Roll out shapes@2" }).click();
    await page.getByText(/Runs shapes: \d/).waitFor();
    const reason = page.getByPlaceholder("Written into the audit log");
    if (await reason.isVisible()) await reason.fill("A run of sixty steps is enough to see the console work");
    await page.getByRole("button", { name: "Start the rollout" }).click();
    await page.waitForURL(/\/rollouts\/rol_/);
    const rollout = new URL(page.url()).pathname.split("/").at(-1)!;
    await page.getByRole("region", { name: "Wave 1" }).waitFor();
    await page.getByRole("button", { name: "Abort" }).click();
    const confirm = page.getByRole("dialog", { name: /Abort: shapes@2/ });
    await confirm.getByText(/can’t be resumed/).waitFor();
    await confirm.getByRole("button", { name: "Abort" }).click();
    await until(
      "the rollout is aborted",
      async () => (await fleet.api<RolloutView>("GET", `/api/v1/rollouts/${rollout}`)).state === "aborted",
    );
    await page.getByText("aborted").first().waitFor();
    expect(errors).toEqual([]);

    for (const colorScheme of ["light", "dark"] as const) {
      const other = await signedIn({ colorScheme });
      await walk(other.page, [`/training/${run}`, `/rollouts/${rollout}`, "/models/shapes/2"]);
      expect(other.errors).toEqual([]);
    }
  });

  const PAGES = [
    "/fleet",
    "/devices/cam-lyon-01",
    `/devices/${LONG_NAME}`,
    "/failures?labelled=any",
    "/models",
    "/models/shapes",
    "/models/shapes/1",
    "/rollouts",
    "/rollouts/new",
  ];
  const walk = async (page: Page, paths: readonly string[]) => {
    for (const path of paths) {
      await open(page, path);
      await page.waitForLoadState("load");
      await poll(() => page.locator(".skeleton").count()).toBe(0);
      expect(await overflowOf(page), `${path} is wider than the window`).toBeLessThanOrEqual(0);
    }
  };

  const sizes = [
    ["desktop", DESKTOP],
    ["phone", { width: 390, height: 844 }],
  ] as const;
  const seed = testSeed();
  console.log(`FIELDLOOP_TEST_SEED=${seed}`);
  const wideFirst = randomOf(seed, 1).uniform() < 0.5;
  for (const [scheme, colorScheme] of (["light", "dark"] as const).entries()) {
    for (const [size, [name, viewport]] of sizes.entries()) {
      // Each theme in one size, which one differs from run to run; where tests are thorough, in both.
      if (!isThorough && (scheme === size) !== wideFirst) continue;
      it(`draws every page without an error and no wider than the window: ${colorScheme}, ${name}`, async () => {
        const { page, errors } = await signedIn({ colorScheme, viewport });
        await walk(page, PAGES);
        expect(await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")).toMatch(
          colorScheme === "light" ? /24[0-9]/ : /1[0-9], 1[0-9]/,
        );
        expect(errors).toEqual([]);
      });
    }
  }

  it("keeps the chosen theme", async () => {
    const { page } = await signedIn({ colorScheme: "light" });
    await page.getByRole("button", { name: "Switch to dark" }).click();
    await page.reload();
    await page.getByRole("button", { name: "Switch to light" }).waitFor();
  });

  it("says what is missing, with the code and a way to try again", async () => {
    const { page } = await signedIn();
    await open(page, "/devices/nowhere");
    await page.getByRole("alert").getByText("not_found").waitFor();
    await open(page, "/no/such/page");
    await page.getByRole("heading", { name: "No such page" }).waitFor();
    await page.route("**/api/v1/rollouts", (route) => route.abort());
    await open(page, "/rollouts");
    await page.getByRole("alert").getByText("unreachable").waitFor();
    await page.unroute("**/api/v1/rollouts");
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("alert").waitFor({ state: "detached" });
  });

  it("offers a viewer no action", async () => {
    const { token } = await fleet.api<{ token: string }>("POST", "/api/v1/tokens", {
      name: "watcher",
      role: "viewer",
    });
    const { page, close } = await openPage(browser);
    await page.goto(at(`/failures?labelled=any#token=${token}`));
    const fix = page.getByRole("button", { name: "Fix this" });
    await fix.waitFor();
    expect(await fix.isDisabled()).toBe(true);
    expect(await fix.getAttribute("title")).toContain("operator");
    const before = await allSamples(fleet);
    await page.locator(".label").first().waitFor();
    await page.keyboard.press("1");
    await page.keyboard.press("i");
    await open(page, "/rollouts");
    expect(await allSamples(fleet)).toEqual(before);
    await close();
  });
});

describe.skipIf(skipped !== undefined)("the console of an empty server", () => {
  it("says on every page what to do first", async () => {
    const fleet = await startFleet();
    const { page, close } = await openPage(browser, { viewport: { width: 390, height: 844 } });
    try {
      await page.goto(`${fleet.server.httpUrl}/fleet#token=${fleet.token}`);
      await page.getByText("No device has enrolled yet").waitFor();
      for (const [path, text] of [
        ["/failures", "Nothing is left to label"],
        ["/models", "No model is published yet"],
        ["/rollouts", "No rollout yet"],
        ["/rollouts/new", "There is no version to roll out"],
      ] as const) {
        await page.goto(fleet.server.httpUrl + path);
        await page.getByText(text).waitFor();
        expect(await overflowOf(page)).toBeLessThanOrEqual(0);
      }
    } finally {
      await close();
      await fleet.end();
    }
  });
});

/** The kit draws bar, ring and cross in turn: what each sample shows is known. */
async function labelByTruth(fleet: Fleet): Promise<void> {
  const samples = (await allSamples(fleet)).filter(({ model }) => model === "shapes");
  for (const device of new Set(samples.map((sample) => sample.device))) {
    const mine = samples.filter((sample) => sample.device === device).sort((a, b) => b.worth - a.worth);
    for (const [at, { sample }] of mine.entries()) {
      await fleet.api("POST", `/api/v1/samples/${sample}/annotations`, {
        label: ["bar", "ring", "cross"][at % 3],
      });
    }
  }
}

async function ending(fleet: Fleet, run: string): Promise<TrainingRun | undefined> {
  const found = await fleet.api<TrainingRun>("GET", `/api/v1/training-runs/${run}`);
  return found.finished === null ? undefined : found;
}
