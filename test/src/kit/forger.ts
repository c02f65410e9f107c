import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  MAIN_LANE,
  createSigningKey,
  DESIRED_TYPE,
  encodeMessage,
  fromHex,
  sign,
  type Assignment,
  type Desired,
  type SigningKey,
} from "@fieldloop/protocol";
import { Broker } from "@fieldloop/fleet-server";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { silentLogger } from "./logger.js";

/** The director's key of a fleet, as a thief of the server's disk would read it: it signs desired states, and vouches for no package. */
export function stolenKey(dataDir: string): SigningKey {
  const { secretKey } = JSON.parse(readFileSync(join(dataDir, "fleet-key.json"), "utf8")) as {
    secretKey: string;
  };
  return createSigningKey(() => fromHex(secretKey));
}

/** A key that no device trusts. */
export const STRANGER: SigningKey = createSigningKey((length) => new Uint8Array(length).fill(7));

/** What would be assigned to a device for a package. */
export function assignmentOf(made: ModelPackage, deployment: string): Assignment {
  const { model, version } = made.manifest;
  const { packageSha256 } = made;
  const manifestBytes = made.manifestBytes.length;
  return {
    deployment,
    lane: MAIN_LANE,
    model,
    version,
    packageSha256,
    manifestBytes,
    probation: { seconds: 0, predictions: 5 },
    shadow: null,
    window: null,
    expires: null,
  };
}

/** A broker that takes any device in and says what it likes: the real one, in a stranger's hands. */
export class HostileBroker {
  readonly #broker = new Broker({ authorize: { kind: "open" }, logger: silentLogger });
  port = 0;

  async start(): Promise<void> {
    this.port = await this.#broker.start(0, "127.0.0.1");
  }

  stop(): Promise<void> {
    return this.#broker.stop();
  }

  desire(desired: Desired, key: SigningKey): Promise<void> {
    return this.send(desired.device, sign(DESIRED_TYPE, encodeMessage("desired", desired), key));
  }

  send(device: string, envelope: Uint8Array): Promise<void> {
    return this.#broker.publish(device, "desired", envelope);
  }
}
