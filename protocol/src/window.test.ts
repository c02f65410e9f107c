import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { UpdateWindow } from "./messages/desired.js";
import { windowState } from "./window.js";

const PARIS = "Europe/Paris";
const EVERY_DAY: UpdateWindow = { days: [], start: "02:30", minutes: 60 };

function at(text: string): number {
  return Date.parse(text);
}
function opensAt(window: UpdateWindow, time: string, zone: string): string {
  const state = windowState(window, at(time), zone);
  return state.open ? "open" : new Date(state.opensAt).toISOString();
}
function closesAt(window: UpdateWindow, time: string, zone: string): string {
  const state = windowState(window, at(time), zone);
  return state.open ? new Date(state.closesAt).toISOString() : "closed";
}

describe("windowState", () => {
  it("is in the device's time, on the listed days, and half open", () => {
    const window: UpdateWindow = { days: [1], start: "22:00", minutes: 120 };
    // Monday 2026-11-23, 22:00 in Tokyo is 13:00 UTC.
    expect(opensAt(window, "2026-11-23T12:59:59.999Z", "Asia/Tokyo")).toBe("2026-11-23T13:00:00.000Z");
    expect(closesAt(window, "2026-11-23T13:00:00Z", "Asia/Tokyo")).toBe("2026-11-23T15:00:00.000Z");
    expect(closesAt(window, "2026-11-23T14:59:59.999Z", "Asia/Tokyo")).toBe("2026-11-23T15:00:00.000Z");
    expect(opensAt(window, "2026-11-23T15:00:00Z", "Asia/Tokyo")).toBe("2026-11-30T13:00:00.000Z");
  });

  it("reaches over midnight, and over days", () => {
    const night: UpdateWindow = { days: [5], start: "23:30", minutes: 90 };
    // Friday 2026-11-27; half past midnight is Saturday already.
    expect(closesAt(night, "2026-11-27T23:30:00Z", PARIS)).toBe("2026-11-28T00:00:00.000Z");
    const weekend: UpdateWindow = { days: [6], start: "00:00", minutes: 2 * 1_440 };
    expect(closesAt(weekend, "2026-11-29T20:00:00Z", "UTC")).toBe("2026-11-30T00:00:00.000Z");
  });

  it("opens right after the hour that the clocks leap over in spring", () => {
    // 2027-03-28 in Paris: 02:00 becomes 03:00, at 01:00 UTC.
    expect(opensAt(EVERY_DAY, "2027-03-27T23:00:00Z", PARIS)).toBe("2027-03-28T01:00:00.000Z");
    expect(closesAt(EVERY_DAY, "2027-03-28T01:59:00Z", PARIS)).toBe("2027-03-28T02:00:00.000Z");
    expect(opensAt(EVERY_DAY, "2027-03-28T02:00:00Z", PARIS)).toBe("2027-03-29T00:30:00.000Z");
  });

  it("opens once, for its whole length, in the hour that the clocks show twice in autumn", () => {
    // 2026-10-25 in Paris: 03:00 becomes 02:00, at 01:00 UTC; 02:30 is 00:30 UTC and 01:30 UTC.
    expect(closesAt(EVERY_DAY, "2026-10-25T00:30:00Z", PARIS)).toBe("2026-10-25T01:30:00.000Z");
    expect(opensAt(EVERY_DAY, "2026-10-25T01:30:00Z", PARIS)).toBe("2026-10-26T01:30:00.000Z");
    const long: UpdateWindow = { ...EVERY_DAY, start: "01:00", minutes: 180 };
    expect(closesAt(long, "2026-10-24T23:00:00Z", PARIS)).toBe("2026-10-25T02:00:00.000Z");
  });

  it("knows half-hour changes, changes at midnight, and a day that a place left out", () => {
    // Lord Howe, 2026-10-04: 02:00 becomes 02:30, at 15:30 UTC of the day before.
    const lordHowe: UpdateWindow = { days: [], start: "02:15", minutes: 10 };
    expect(opensAt(lordHowe, "2026-10-03T15:00:00Z", "Australia/Lord_Howe")).toBe("2026-10-03T15:30:00.000Z");
    // Beirut, 2026-03-29: midnight becomes 01:00, at 22:00 UTC of the day before.
    const beirut: UpdateWindow = { days: [0], start: "00:00", minutes: 30 };
    expect(opensAt(beirut, "2026-03-28T12:00:00Z", "Asia/Beirut")).toBe("2026-03-28T22:00:00.000Z");
    // Samoa had no Friday 2011-12-30: the next one is a week later.
    const friday: UpdateWindow = { days: [5], start: "12:00", minutes: 30 };
    expect(opensAt(friday, "2011-12-28T00:00:00Z", "Pacific/Apia")).toBe("2012-01-05T22:00:00.000Z");
  });

  it("takes a time zone that nobody knows for UTC", () => {
    expect(opensAt(EVERY_DAY, "2026-11-23T00:00:00Z", "Mars/Olympus")).toBe("2026-11-23T02:30:00.000Z");
  });

  it("is open exactly where the opening before it says so, and always opens within eight days", () => {
    const zones = [PARIS, "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago"];
    const window = fc.record({
      days: fc.uniqueArray(fc.integer({ min: 0, max: 6 })),
      start: fc
        .tuple(fc.integer({ min: 0, max: 23 }), fc.integer({ min: 0, max: 59 }))
        .map((pair) => pair.map((part) => String(part).padStart(2, "0")).join(":")),
      minutes: fc.integer({ min: 1, max: 3_000 }),
    });
    const time = fc.integer({ min: at("2020-01-01T00:00:00Z"), max: at("2030-01-01T00:00:00Z") });
    fc.assert(
      fc.property(window, time, fc.constantFrom(...zones), (w, t, zone) => {
        const state = windowState(w, t, zone);
        if (state.open) {
          expect(state.closesAt).toBeGreaterThan(t);
          expect(state.closesAt - t).toBeLessThanOrEqual(w.minutes * 60_000);
          expect(windowState(w, state.closesAt - 1, zone).open).toBe(true);
          return;
        }
        expect(state.opensAt).toBeGreaterThan(t);
        expect(state.opensAt - t).toBeLessThanOrEqual(8 * 86_400_000 + 7_200_000);
        expect(windowState(w, state.opensAt, zone).open).toBe(true);
        expect(windowState(w, state.opensAt - 1, zone).open).toBe(false);
      }),
      { numRuns: 300 },
    );
  });
});
