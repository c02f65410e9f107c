import { randomInt } from "node:crypto";
import {
  FieldloopError,
  toHex,
  type EnrolRequest,
  type EnrolResponse,
  type SigningKey,
} from "@fieldloop/protocol";
import { hashSecret, newCredential, newSecret } from "../auth/secrets.js";
import { Throttle } from "../auth/throttle.js";
import type { Clock } from "../context.js";
import { SERVER_LIMITS } from "../limits.js";
import type { AuthStore } from "../store/auth.js";
import type { Database } from "../store/database.js";
import type { DeviceStore } from "../store/devices.js";
import type { DesiredService } from "./desired.js";
import type { LiveHub } from "./live.js";

export interface EnrolmentServiceOptions {
  readonly database: Database;
  readonly auth: AuthStore;
  readonly devices: DeviceStore;
  readonly desired: DesiredService;
  readonly trust: { readonly directorKey: SigningKey; factoryRoot(): Promise<string> };
  readonly clock: Clock;
  readonly live: LiveHub;
}

/** How a device comes to be: a token with few uses and a short life is traded for its own credential. */
export class EnrolmentService {
  readonly #options: EnrolmentServiceOptions;
  readonly #throttle: Throttle;

  constructor(options: EnrolmentServiceOptions) {
    this.#options = options;
    this.#throttle = new Throttle(SERVER_LIMITS.enrolAttemptsPerMinute, options.clock);
  }

  async createToken(
    author: string,
    ttlSeconds: number,
    uses: number,
  ): Promise<{ token: string; expires: number; uses: number }> {
    const token = newSecret("fle");
    const created = this.#options.clock.now();
    const expires = created + ttlSeconds * 1_000;
    await this.#options.auth.insertEnrolmentToken({
      sha256: hashSecret(token),
      created,
      expires,
      uses,
      author,
    });
    return { token, expires, uses };
  }

  /**
   * The token's use and the device are one unit of work: a refused device id costs no use, and of any number of requests at once
   * only as many win as the token has uses.
   * @throws FieldloopError `enrolment_refused`, `already_exists`, `rate_limited`
   */
  async enrol(request: EnrolRequest, mqttUrl: string, address: string): Promise<EnrolResponse> {
    const { database, auth, devices, clock, trust } = this.#options;
    if (!this.#throttle.allows(address)) {
      throw new FieldloopError("rate_limited", `Enrol: too many refusals from "${address}"; wait a minute`);
    }
    if ((await devices.count()) >= SERVER_LIMITS.devicesMax) {
      throw new FieldloopError(
        "limit_exceeded",
        `Enrol: there are ${SERVER_LIMITS.devicesMax} devices already`,
      );
    }
    const device = request.device ?? newDeviceId();
    const credential = newCredential(device);
    const now = clock.now();
    await database.transaction(async (tx) => {
      if (!(await auth.takeEnrolmentUse(tx, hashSecret(request.token), now))) {
        this.#throttle.failed(address);
        throw new FieldloopError("enrolment_refused", "Enrol: the token is unknown, used or expired");
      }
      await devices.insert(tx, {
        device,
        tags: request.tags,
        facts: request.facts,
        enrolled: now,
        credentialSha256: hashSecret(credential),
      });
    });
    await this.#options.desired.reissue(device);
    this.#options.live.publish({ type: "device", id: device, device });
    const { keyId, publicKey } = trust.directorKey;
    const fleetKeys = [{ keyId, publicKey: toHex(publicKey) }];
    return { device, credential, mqttUrl, fleetKeys, root: await trust.factoryRoot() };
  }
}

/** Without letters that are read as digits. */
const ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789";

function newDeviceId(): string {
  return `device-${Array.from({ length: 8 }, () => ALPHABET[randomInt(ALPHABET.length)]).join("")}`;
}
