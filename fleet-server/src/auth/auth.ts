import { FieldloopError, type Role } from "@fieldloop/protocol";
import type { Context } from "hono";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import type { Clock } from "../context.js";
import type { AppEnv, Principal } from "../http/env.js";
import type { Authenticator } from "../http/guards.js";
import { SERVER_LIMITS } from "../limits.js";
import { AuditStore } from "../store/audit.js";
import type { Database } from "../store/database.js";
import type { NewId } from "../services/ids.js";
import type { AuthStore, TokenOwner, TokenRecord } from "../store/auth.js";
import type { DeviceStore } from "../store/devices.js";
import { deviceOfCredential, hashSecret, newSecret, sameHash } from "./secrets.js";
import { Throttle } from "./throttle.js";

const COOKIE = "fieldloop_session";

export interface AuthServiceOptions {
  readonly database: Database;
  readonly newId: NewId;
  readonly store: AuthStore;
  readonly devices: DeviceStore;
  readonly clock: Clock;
}

/**
 * Who asks. Parties: people and programs with API tokens, consoles with a session cookie made from one, devices with their
 * credential. Threats met: guessing (random secrets, throttled per address), reading the database (hashes only), cross-site
 * requests (SameSite=Lax, HttpOnly cookie, origin check on writes). Not met here: eavesdropping without TLS in front.
 */
export class AuthService implements Authenticator {
  readonly #database: Database;
  readonly #newId: NewId;
  readonly #store: AuthStore;
  readonly #devices: DeviceStore;
  readonly #clock: Clock;
  readonly #throttle: Throttle;

  constructor({ database, newId, store, devices, clock }: AuthServiceOptions) {
    this.#database = database;
    this.#newId = newId;
    this.#store = store;
    this.#devices = devices;
    this.#clock = clock;
    this.#throttle = new Throttle(SERVER_LIMITS.loginAttemptsPerMinute, clock);
  }

  async authenticate(c: Context<AppEnv>): Promise<Principal | undefined> {
    const header = c.req.header("Authorization");
    if (header !== undefined) return this.#bearer(header, c);
    const cookie = getCookie(c, COOKIE);
    if (cookie === undefined) return undefined;
    // An expired session is as good as none: the console then shows its sign-in.
    const session = await this.#store.session(hashSecret(cookie), this.#clock.now());
    return session && { kind: "user", ...session, by: "session" };
  }

  /**
   * Makes a token; it is told once and never again. Without a `person` it is a program's, and who made it answers for it.
   * @param maker undefined for the first token of all
   * @throws FieldloopError `already_exists`, `limit_exceeded`
   */
  async createToken(
    { name, role, person = null }: { name: string; role: Role; person?: string | null },
    maker: { readonly name: string; readonly sponsor: string } | undefined,
  ): Promise<string> {
    if ((await this.#store.countTokens()) >= SERVER_LIMITS.apiTokensMax) {
      throw new FieldloopError(
        "limit_exceeded",
        `Create token: there are ${SERVER_LIMITS.apiTokensMax} already`,
      );
    }
    const token = newSecret("flt");
    const created = this.#clock.now();
    const sponsor = person ?? maker?.sponsor ?? name;
    await this.#database.transaction(async (tx) => {
      await this.#store.insertToken(tx, { sha256: hashSecret(token), name, role, person, sponsor, created });
      await this.#audit(tx, "token.created", name, maker?.name ?? "server", { role, person, sponsor });
    });
    return token;
  }

  tokens(): Promise<TokenRecord[]> {
    return this.#store.tokens();
  }

  /** @throws FieldloopError `not_found` */
  async revokeToken(name: string, actor: string): Promise<void> {
    await this.#database.transaction(async (tx) => {
      if (!(await this.#store.revokeToken(tx, name)))
        throw new FieldloopError("not_found", `Revoke token: there is no usable token "${name}"`);
      await this.#audit(tx, "token.revoked", name, actor, {});
    });
  }

  async #audit(tx: Database, action: string, token: string, actor: string, detail: object): Promise<void> {
    const entry = { entry: this.#newId("aud"), time: this.#clock.now(), actor, action };
    await new AuditStore(tx).add({ ...entry, subject: `token:${token}`, detail: { ...detail } });
  }

  /** Turns a token into a session cookie. @throws FieldloopError `unauthenticated`, `rate_limited` */
  async signIn(c: Context<AppEnv>, token: string): Promise<{ name: string; role: Role }> {
    const { name, role } = await this.#userOf(token, addressOf(c));
    const session = newSecret("fls");
    const now = this.#clock.now();
    await this.#store.insertSession({
      sha256: hashSecret(session),
      tokenSha256: hashSecret(token),
      created: now,
      expires: now + SERVER_LIMITS.sessionTtlMs,
    });
    setCookie(c, COOKIE, session, {
      httpOnly: true,
      sameSite: "Lax",
      path: "/",
      secure: new URL(c.req.url).protocol === "https:",
      maxAge: SERVER_LIMITS.sessionTtlMs / 1_000,
    });
    return { name, role };
  }

  async signOut(c: Context<AppEnv>): Promise<void> {
    const cookie = getCookie(c, COOKIE);
    if (cookie !== undefined) await this.#store.deleteSession(hashSecret(cookie));
    deleteCookie(c, COOKIE, { path: "/" });
  }

  /** Checks a device's credential. @throws FieldloopError `unauthenticated`, `device_suspended` */
  async device(credential: string): Promise<string> {
    const device = deviceOfCredential(credential);
    const known = device === undefined ? undefined : await this.#devices.credential(device);
    // An unknown device costs the same comparison as a known one with a wrong secret.
    const matches = sameHash(hashSecret(credential), known?.credentialSha256 ?? hashSecret("unknown"));
    if (device === undefined || !known || !matches) {
      throw new FieldloopError("unauthenticated", "Authenticate: the device credential is not known");
    }
    if (known.suspended)
      throw new FieldloopError("device_suspended", `Authenticate: device "${device}" is suspended`);
    return device;
  }

  /** Lets a device connect to the broker. @throws FieldloopError `unauthenticated`, `device_suspended` */
  async connect(device: string, credential: string): Promise<void> {
    if ((await this.device(credential)) !== device) {
      throw new FieldloopError("unauthenticated", "Connect: the credential is another device's");
    }
  }

  async #bearer(header: string, c: Context<AppEnv>): Promise<Principal> {
    const secret = /^Bearer ([\x21-\x7e]{1,256})$/.exec(header)?.[1];
    if (secret === undefined)
      throw new FieldloopError("unauthenticated", "Authenticate: wanted a bearer token");
    const address = addressOf(c);
    if (!secret.startsWith("fld.")) {
      return { kind: "user", ...(await this.#userOf(secret, address)), by: "token" };
    }
    try {
      return { kind: "device", device: await this.device(secret) };
    } catch (error) {
      // As with tokens: the devices behind a guesser's address keep their downloads.
      this.#refuseThrottled(address);
      this.#throttle.failed(address);
      throw error;
    }
  }

  async #userOf(token: string, address: string): Promise<TokenOwner> {
    const user = await this.#store.token(hashSecret(token));
    if (user) return user;
    // Only who guesses wrong is slowed down: a right token from a shared address still works.
    this.#refuseThrottled(address);
    this.#throttle.failed(address);
    throw new FieldloopError("unauthenticated", "Authenticate: the token is not known");
  }

  #refuseThrottled(address: string): void {
    if (!this.#throttle.allows(address)) {
      throw new FieldloopError(
        "rate_limited",
        `Authenticate: too many failures from "${address}"; wait a minute`,
      );
    }
  }
}

/** The address of the socket. Headers that a proxy may set are not trusted. */
export function addressOf(c: Context<AppEnv>): string {
  return c.env?.incoming?.socket?.remoteAddress ?? "unknown";
}
