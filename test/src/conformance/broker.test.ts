import { Broker } from "@fieldloop/fleet-server";
import { describe } from "vitest";
import { silentLogger } from "../kit/logger.js";
import { mqttConformance } from "./mqtt-3.1.1.suite.js";

describe("embedded broker behind its guard", () => {
  mqttConformance(async () => {
    const broker = new Broker({ authorize: { kind: "open" }, logger: silentLogger });
    const port = await broker.start(0, "127.0.0.1");
    return { port, stop: () => broker.stop() };
  });
});
