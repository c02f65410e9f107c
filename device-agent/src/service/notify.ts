import { execFile } from "node:child_process";

/** What systemd says to a service about how it wants to be told (sd_notify(3), sd_watchdog_enabled(3)). */
export interface NotifyEnvironment {
  readonly NOTIFY_SOCKET?: string | undefined;
  readonly WATCHDOG_USEC?: string | undefined;
}

const NOTIFY_TIMEOUT_MS = 10_000;
/** systemd asks for a sign of life at least every half of its limit. */
const WATCHDOG_SHARE = 3;

/**
 * Tells systemd that the service is ready, lives, and stops. Node.js has no datagram sockets of the Unix family, so every message is a
 * short-lived `systemd-notify`; a watchdog of a minute makes that three a minute. The sign of life is sent from the event loop of the
 * control process: when that hangs, it stops, and systemd starts the service again.
 */
export class ServiceNotifier {
  readonly #socket: string | undefined;
  readonly #watchdogMs: number;
  #timer: NodeJS.Timeout | undefined;
  #failed = 0;

  constructor(environment: NotifyEnvironment) {
    this.#socket = environment.NOTIFY_SOCKET;
    const microseconds = Number(environment.WATCHDOG_USEC);
    this.#watchdogMs = microseconds > 0 && Number.isFinite(microseconds) ? microseconds / 1000 : 0;
  }

  /** Messages that could not be sent. */
  get failed(): number {
    return this.#failed;
  }

  /** After enrolment, when the agent answers. */
  async ready(status: string): Promise<void> {
    await this.#send("--ready", `--status=${status}`);
    if (this.#socket === undefined || this.#watchdogMs === 0) return;
    this.#timer = setInterval(() => void this.#send("WATCHDOG=1"), this.#watchdogMs / WATCHDOG_SHARE);
    this.#timer.unref();
  }

  async stopping(): Promise<void> {
    clearInterval(this.#timer);
    await this.#send("STOPPING=1");
  }

  #send(...words: string[]): Promise<void> {
    const socket = this.#socket;
    if (socket === undefined) return Promise.resolve();
    return new Promise((resolve) => {
      const options = { timeout: NOTIFY_TIMEOUT_MS, env: { NOTIFY_SOCKET: socket, PATH: SYSTEM_PATH } };
      execFile("systemd-notify", words, options, (error) => {
        // Without it systemd starts the service again, which says more than a log line could.
        if (error) this.#failed++;
        resolve();
      });
    });
  }
}

const SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
