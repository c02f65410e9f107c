import { type AddressInfo, createServer, type Server } from "node:net";
import { join } from "node:path";
import { decodeMessage, parseTopic } from "@fieldloop/protocol";
import { Aedes } from "aedes";
import pino from "pino";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../clock.js";
import { until } from "../testing/fleet.test.kit.js";
import { scratchFolder } from "../testing/package.test.kit.js";
import { openTestBandwidth } from "../testing/updater.test.kit.js";
import type { Bandwidth } from "./bandwidth.js";
import { Sender } from "./sender.js";
import { Spool } from "./spool/spool.js";
import { Uplink } from "./uplink.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let broker: Aedes;
let server: Server;
let spool: Spool;
let bandwidth: Bandwidth;
let uplink: Uplink;
/** What the device said of itself, in order. */
let presence: boolean[];
let onPresence: (online: boolean) => void;
beforeEach(async () => {
  folder = await scratchFolder();
  presence = [];
  onPresence = () => undefined;
  broker = await Aedes.createBroker();
  broker.on("publish", ({ topic, payload }) => {
    if (topic.startsWith("$SYS") || parseTopic(topic).kind !== "presence") return;
    const { online } = decodeMessage("presence", new Uint8Array(payload as Buffer));
    presence.push(online);
    onPresence(online);
  });
  server = createServer((socket) => broker.handle(socket));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const nothing = (): undefined => undefined;
  bandwidth = await openTestBandwidth(folder.path);
  spool = await Spool.open({
    ...{ directory: join(folder.path, "spool"), boot: 1, bytesMax: 1 << 20 },
    ...{ onDurable: nothing, onEvicted: nothing, onStorage: nothing },
  });
  uplink = new Uplink({
    ...{ device: "cam-1", credential: "secret", boot: 1, clock: systemClock, random: () => 0 },
    mqttUrl: `mqtt://127.0.0.1:${(server.address() as AddressInfo).port}`,
    sender: new Sender({ device: "cam-1", spool, clock: systemClock, bandwidth, onError: nothing }),
    log: pino({ level: "silent" }),
    state: () => new Uint8Array([0]),
    ...{ onDesired: nothing, onCommand: nothing, onAck: nothing, onLink: nothing },
  });
});
afterEach(async () => {
  await uplink.stop();
  await new Promise<void>((resolve) => broker.close(() => resolve()));
  await new Promise((resolve) => server.close(resolve));
  await spool.close();
  await bandwidth.close();
  await folder.remove();
});

describe("a device that stops", () => {
  it("says so although its link was only just being set up", async () => {
    let stopping: Promise<void> | undefined;
    onPresence = (online) => {
      if (online) stopping ??= uplink.stop();
    };
    uplink.start();
    await until(() => stopping !== undefined, "it says that it is online");
    await stopping;
    await until(() => broker.connectedClients === 0, "it is gone");
    expect(presence.at(-1)).toBe(false);
  });
});
