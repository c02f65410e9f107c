import { describe, expect, it } from "vitest";
import { PowerCutDisk } from "../../testing/power-cut-disk.test.kit.js";
import { TrustClock } from "./trust-clock.js";

const HOUR = 3_600_000;
const NOON = Date.parse("2026-11-27T12:00:00Z");
const VERSIONS = { root: 3, timestamp: 40, snapshot: 30, targets: 20 };

class Device {
  readonly disk = new PowerCutDisk();
  now = NOON;
  clock!: TrustClock;

  async start(): Promise<TrustClock> {
    await this.disk.makeDirectory("/trust");
    this.clock = new TrustClock("/trust", this.disk, { now: () => this.now, monotonic: () => 0 });
    await this.clock.load();
    return this.clock;
  }
}

describe("trust clock", () => {
  it("judges by the clock, or by the last trusted time where the clock stands before it", async () => {
    const device = new Device();
    await (await device.start()).succeeded(NOON);
    device.now = NOON + 5 * HOUR;
    expect(device.clock.reference()).toBe(device.now);
    await device.clock.succeeded(device.now);
    device.now = 0;
    const clock = await device.start();
    expect(clock.reference()).toBe(NOON + 5 * HOUR);
    expect(clock.behindMs).toBe(NOON + 5 * HOUR);
    device.now = NOON + 5 * HOUR - 30_000;
    expect(clock.behindMs).toBe(0);
  });

  it("writes the time when it has grown by a step, not at every success", async () => {
    const device = new Device();
    await (await device.start()).succeeded(NOON);
    const { steps } = device.disk;
    for (let minute = 1; minute < 10; minute++) await device.clock.succeeded(NOON + minute * 60_000);
    expect(device.disk.steps).toBe(steps);
    await device.clock.succeeded(NOON + 10 * 60_000);
    expect((await device.start()).trusted).toBe(NOON + 10 * 60_000);
  });

  it("does not let metadata that had expired come to life by a clock that is set back", async () => {
    const device = new Device();
    const clock = await device.start();
    await clock.succeeded(NOON);
    await clock.expired(NOON + 48 * HOUR, VERSIONS);
    device.now = NOON + HOUR;
    const restarted = await device.start();
    const reference = restarted.reference();
    expect(() => restarted.admit(reference, VERSIONS)).toThrow(
      expect.objectContaining({ code: "trust_clock_back" }) as Error,
    );
    // A newer timestamp, or a newer root, was made after that time; newer targets say nothing of it.
    restarted.admit(reference, { ...VERSIONS, timestamp: 41 });
    restarted.admit(reference, { ...VERSIONS, root: 4, timestamp: 1 });
    expect(() => restarted.admit(reference, { ...VERSIONS, targets: 21 })).toThrow(/had expired already/);
    restarted.admit(NOON + 48 * HOUR, VERSIONS);
  });

  it("forgives a clock that was far ahead: newer metadata count, and the same ones once they expire in earnest", async () => {
    const device = new Device();
    const clock = await device.start();
    await clock.succeeded(NOON);
    await clock.expired(Date.parse("2099-01-01T00:00:00Z"), VERSIONS);
    expect(clock.reference()).toBe(NOON);
    await clock.expired(NOON + 24 * HOUR, VERSIONS);
    clock.admit(NOON + 25 * HOUR, VERSIONS);
    await clock.succeeded(NOON + 25 * HOUR);
    clock.admit(NOON + 25 * HOUR, VERSIONS);
  });

  it("starts from nothing where its file was harmed, and writes it anew", async () => {
    const device = new Device();
    await (await device.start()).succeeded(NOON);
    for (const text of ["", "{", '{"schema":1,"trusted":-4}']) {
      device.disk.harm("/trust/clock", Buffer.from(text));
      expect((await device.start()).trusted).toBe(0);
    }
    await device.clock.succeeded(NOON);
    expect((await device.start()).trusted).toBe(NOON);
  });
});
