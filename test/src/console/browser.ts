import { existsSync } from "node:fs";
import { type Browser, type BrowserContextOptions, type Page, chromium } from "playwright-core";
import { dropPromiseContexts } from "../kit/promise-contexts.js";

const CHROMIUM = "/usr/bin/chromium";
const ARGUMENTS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Why the browser tests can't run here; undefined where they can. */
export const whyNoBrowser = existsSync(CHROMIUM) ? undefined : `${CHROMIUM} is not installed`;

export function openBrowser(): Promise<Browser> {
  return chromium.launch({ executablePath: CHROMIUM, args: ARGUMENTS });
}

export async function closeBrowser(browser: Browser | undefined): Promise<void> {
  await browser?.close();
  dropPromiseContexts();
}

/** A page that keeps what went wrong in it: errors of scripts, of the content policy, and refused requests. */
export interface WatchedPage {
  readonly page: Page;
  readonly errors: string[];
  readonly close: () => Promise<void>;
}

export async function openPage(browser: Browser, options: BrowserContextOptions = {}): Promise<WatchedPage> {
  const context = await browser.newContext({
    viewport: { width: 1400, height: 900 },
    reducedMotion: "reduce",
    ...options,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const errors: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(`${page.url()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => errors.push(`${page.url()}: ${error.stack ?? error.message}`));
  return { page, errors, close: () => context.close() };
}

/** Leaves the page, and forgets whatever an origin has kept: cookies, storage, what it cached. */
export async function emptied(page: Page, origin: string): Promise<void> {
  await page.goto("about:blank");
  const session = await page.context().newCDPSession(page);
  await session.send("Storage.clearDataForOrigin", { origin, storageTypes: "all" });
  await session.detach();
}

/** By how many pixels the document is wider than the window. */
export function overflowOf(page: Page): Promise<number> {
  return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
}
