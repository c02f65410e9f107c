import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Webhook } from "@fieldloop/protocol";
import { afterAll, expect, it } from "vitest";
import { endPrograms, scratchFolder, ServerProgram } from "../kit/fleet.js";
import { until } from "../kit/wait.js";

const scratch = scratchFolder("webhooks");
const ids: string[] = [];
let status = 500;
const receiver = createServer((request, response) => {
  ids.push(String(request.headers["webhook-id"]));
  request.resume();
  response.writeHead(status);
  response.end();
});
afterAll(async () => {
  await endPrograms();
  receiver.close();
  scratch.remove();
});

it("a webhook's delivery survives the death of the server", async () => {
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  const server = await ServerProgram.start({ folder: scratch.path, webhooksPrivate: true });
  const url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`;
  const { webhook } = await server.client.post<Webhook>("/api/v1/webhooks", { url });
  await server.client.post(`/api/v1/webhooks/${webhook}/test`);
  await until("it was tried", () => ids.length >= 1);
  await server.kill();
  status = 204;
  await server.start();
  await until(
    "it was delivered",
    async () => (await server.client.get<Webhook>(`/api/v1/webhooks/${webhook}`)).pending === 0,
    { timeoutMs: 30_000 },
  );
  expect(ids.length).toBeGreaterThanOrEqual(2);
  expect(new Set(ids).size).toBe(1);
  await server.stop();
});
