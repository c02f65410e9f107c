import { randomInt } from "node:crypto";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";

/** `pass` forwards; `refuse` drops every connection at once; `half_open` accepts and then swallows everything, both ways. */
export type ProxyMode = "pass" | "refuse" | "half_open";

export interface ProxyOptions {
  /** May be set later with {@link FaultProxy.aim}. */
  readonly targetPort?: number;
  readonly onDown?: DownListener;
}

/** Bytes from the target to the client, by the running number of the connection. */
type DownListener = (connection: number, bytes: Buffer) => void;

interface Link {
  readonly client: Socket;
  readonly target: Socket;
}

/** A TCP proxy on loopback that breaks on command: what a network does to a device. */
export class FaultProxy {
  readonly #server: Server;
  readonly #onDown: DownListener | undefined;
  readonly #links = new Set<Link>();
  readonly #held = new Set<Socket>();
  #targetPort: number;
  #mode: ProxyMode = "pass";
  #delayMs = 0;
  #downBytesLeft = Number.POSITIVE_INFINITY;
  #connections = 0;

  private constructor(options: ProxyOptions) {
    this.#targetPort = options.targetPort ?? 0;
    this.#onDown = options.onDown;
    this.#server = createServer({ noDelay: true }, (client) => this.#accept(client));
  }

  static async open(options: ProxyOptions = {}): Promise<FaultProxy> {
    const proxy = new FaultProxy(options);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once("error", reject);
      proxy.#server.listen(0, "127.0.0.1", resolve);
    });
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }
  /** Connections made through it so far. */
  get connections(): number {
    return this.#connections;
  }

  /** New connections go to this port. */
  aim(targetPort: number): void {
    this.#targetPort = targetPort;
  }

  /** Resets every open connection; new ones go on. */
  cut(): void {
    for (const { client, target } of this.#links) {
      client.resetAndDestroy();
      target.resetAndDestroy();
    }
    for (const socket of this.#held) socket.resetAndDestroy();
  }

  /** Resets every open connection and every new one. */
  refuse(): void {
    this.#mode = "refuse";
    this.cut();
  }

  /** Everything stays connected and nothing arrives: a mast without power, a cable out behind the switch. */
  halfOpen(): void {
    this.#mode = "half_open";
  }

  /** Every chunk is held back for so long, both ways. */
  delay(ms: number): void {
    this.#delayMs = ms;
  }

  /** Connections are reset once so many more bytes went from target to client. */
  cutAfter(bytes: number): void {
    this.#downBytesLeft = bytes;
  }

  /** Forwards again, without delay or limit. Connections of a half-open time are gone: their bytes are. */
  heal(): void {
    if (this.#mode === "half_open") this.cut();
    this.#mode = "pass";
    this.#delayMs = 0;
    this.#downBytesLeft = Number.POSITIVE_INFINITY;
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #accept(client: Socket): void {
    client.on("error", () => undefined);
    if (this.#mode === "refuse") {
      client.resetAndDestroy();
      return;
    }
    if (this.#mode === "half_open") {
      this.#held.add(client);
      client.on("close", () => this.#held.delete(client));
      client.resume();
      return;
    }
    this.#join(client);
  }

  #join(client: Socket): void {
    const number = ++this.#connections;
    const target = connect(this.#targetPort, "127.0.0.1");
    const link: Link = { client, target };
    this.#links.add(link);
    target.on("error", () => undefined);
    for (const [from, to] of [
      [client, target],
      [target, client],
    ] as const) {
      from.on("data", (bytes: Buffer) => this.#forward(number, from, to, bytes, to === client));
      from.on("close", () => {
        to.destroy();
        this.#links.delete(link);
      });
    }
  }

  #forward(number: number, from: Socket, to: Socket, bytes: Buffer, down: boolean): void {
    if (this.#mode !== "pass") return;
    if (down) this.#downBytesLeft -= bytes.length;
    const rest =
      this.#downBytesLeft < 0 ? bytes.subarray(0, Math.max(0, bytes.length + this.#downBytesLeft)) : bytes;
    const write = (): void => {
      if (to.destroyed) return;
      if (down) this.#onDown?.(number, rest);
      if (!to.write(rest)) {
        from.pause();
        to.once("drain", () => from.resume());
      }
      if (rest.length < bytes.length) this.cut();
    };
    if (this.#delayMs > 0) setTimeout(write, this.#delayMs);
    else write();
  }
}

/**
 * A port that a server can be started on again and again: outside the range that the system gives to outgoing connections
 * (32768 to 60999 on Linux), so that nobody takes it while the server is down. Files that run side by side seldom meet in it.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + randomInt(12_000);
    if (await isFree(port)) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}
