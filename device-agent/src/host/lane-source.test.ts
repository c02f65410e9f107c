import { type AddressInfo, createServer } from "node:net";
import { expect, it } from "vitest";
import { systemClock } from "../clock.js";
import { parseSourceSpec } from "../source-spec.js";
import { FrameQueue } from "./frame-queue.js";
import { LaneSource } from "./lane-source.js";
import { RateGate } from "./rate-gate.js";

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

it("leaves nothing open where it is closed while it opens", async () => {
  const port = await freePort();
  const source = new LaneSource({
    ...{ spec: parseSourceSpec(`http:${port}`), firstIndex: 0, queue: new FrameQueue(2) },
    ...{ gate: new RateGate(undefined, 0), clock: systemClock },
    ...{ onTrouble: () => undefined, onFeedback: () => undefined },
  });
  const opening = source.openOnce();
  await source.close();
  await opening;
  await expect(fetch(`http://127.0.0.1:${port}/`)).rejects.toThrow("fetch failed");
});
