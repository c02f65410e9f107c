import { existsSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { Page as Items, Webhook } from "@fieldloop/protocol";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { closeBrowser, openBrowser, openPage, overflowOf, whyNoBrowser } from "./browser.js";
import { consoleDir, type Fleet, startFleet } from "./seed.js";

const skipped =
  whyNoBrowser ?? (existsSync(join(consoleDir, "index.html")) ? undefined : "the console is not built");
if (skipped) console.warn(`tests of the webhooks page are skipped: ${skipped}`);

describe.skipIf(skipped !== undefined)("the webhooks page", { timeout: 60_000 }, () => {
  let browser: Browser;
  let fleet: Fleet;
  let status = 500;
  const receiver: Server = createServer((request, response) => {
    request.resume();
    response.writeHead(status).end();
  });

  beforeAll(async () => {
    await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
    browser = await openBrowser();
    fleet = await startFleet({ webhooks: { allowPrivate: true, retryMs: 10, attemptsMax: 2 } });
  }, 30_000);
  afterAll(async () => {
    await closeBrowser(browser);
    await fleet?.end();
    receiver.close();
  });

  it("makes one, tests it, shows what failed, sends it again, changes, disables and deletes it", async () => {
    const { page, errors, close } = await openPage(browser);
    await page.goto(`${fleet.server.httpUrl}/webhooks#token=${fleet.token}`);
    await page.getByText("No webhook yet").waitFor();
    await page.getByRole("button", { name: "New webhook" }).click();
    const form = page.getByRole("dialog", { name: "New webhook" });
    await form
      .getByLabel("Address")
      .fill(`http://127.0.0.1:${(receiver.address() as AddressInfo).port}/line`);
    await form.getByRole("checkbox", { name: /a person acted/ }).uncheck();
    await form.getByRole("button", { name: "Create" }).click();
    const told = page.getByRole("dialog", { name: "Secret of the webhook" });
    expect(await told.locator("code").innerText()).toMatch(/^whsec_/);
    await told.getByRole("button", { name: "I have kept it" }).click();
    await page.getByRole("link", { name: /\/line$/ }).click();
    await page.getByText("Nothing was sent yet").waitFor();

    await page.getByRole("button", { name: "Send a test" }).click();
    await page.getByRole("cell", { name: "given up" }).waitFor();
    await page.getByText("it answered 500").waitFor();
    status = 204;
    await page.getByRole("button", { name: "Send again" }).click();
    await page.getByRole("cell", { name: "delivered" }).waitFor();

    await page.getByRole("button", { name: "New secret" }).click();
    await page.getByRole("button", { name: "Replace with an overlap" }).click();
    await told.getByText("signs beside it for a day").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Disable" }).click();
    await page.getByRole("button", { name: "Enable" }).waitFor();
    expect(await page.getByRole("button", { name: "Send a test" }).isDisabled()).toBe(true);
    const [kept] = (await fleet.api<Items<Webhook>>("GET", "/api/v1/webhooks")).items;
    expect(kept).toMatchObject({ enabled: false });
    expect(kept!.events).toHaveLength(5);

    for (const colorScheme of ["light", "dark"] as const) {
      const phone = await openPage(browser, { colorScheme, viewport: { width: 390, height: 844 } });
      await phone.page.goto(`${fleet.server.httpUrl}/webhooks#token=${fleet.token}`);
      await phone.page.getByRole("link", { name: /\/line$/ }).click();
      await phone.page.getByText("delivered").waitFor();
      expect(await overflowOf(phone.page)).toBeLessThanOrEqual(0);
      expect(phone.errors).toEqual([]);
      await phone.close();
    }

    await page.getByRole("button", { name: "Delete" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await page.getByText("No webhook yet").waitFor();
    expect(errors).toEqual([]);
    await close();
  });

  it("is no place of an operator's, and says why", async () => {
    const made = { name: "line-operator", role: "operator" };
    const { token } = await fleet.api<{ token: string }>("POST", "/api/v1/tokens", made);
    const { page, errors, close } = await openPage(browser);
    await page.goto(`${fleet.server.httpUrl}/webhooks#token=${token}`);
    await page.getByText(/Needs the role admin/).waitFor();
    expect(await page.getByRole("link", { name: "Webhooks" }).count()).toBe(0);
    expect(errors).toEqual([]);
    await close();
  });
});
