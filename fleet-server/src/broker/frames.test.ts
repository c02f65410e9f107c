import fc from "fast-check";
import mqttPacket from "mqtt-packet";
import { describe, expect, it } from "vitest";
import { FrameError, FrameScanner, PACKET, type Frame, type FrameLimits } from "./frames.js";

const LIMITS_WIDE: FrameLimits = { packetBytesMax: () => 1 << 28, topicBytesMax: 65_535 };

function scan(bytes: Uint8Array, cuts: readonly number[] = [], limits = LIMITS_WIDE): Frame[] {
  const frames: Frame[] = [];
  const scanner = new FrameScanner(limits, (frame) => frames.push(frame));
  const ends = [...new Set([...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort(
    (a, b) => a - b,
  );
  let at = 0;
  for (const end of ends) {
    scanner.push(bytes.subarray(at, end));
    at = end;
  }
  return frames;
}

describe("frame scanner", () => {
  const packets = [
    mqttPacket.generate({
      cmd: "connect",
      protocolId: "MQTT",
      protocolVersion: 4,
      clientId: "a",
      clean: true,
      keepalive: 9,
    }),
    mqttPacket.generate({
      cmd: "publish",
      topic: "a/b",
      payload: Buffer.alloc(200),
      qos: 1,
      retain: false,
      dup: false,
      messageId: 77,
    }),
    mqttPacket.generate({
      cmd: "publish",
      topic: "ü/b",
      payload: Buffer.alloc(0),
      qos: 0,
      retain: true,
      dup: false,
    }),
    mqttPacket.generate({
      cmd: "subscribe",
      messageId: 2,
      subscriptions: [
        { topic: "x/#", qos: 0 },
        { topic: "y", qos: 1 },
      ],
    }),
    mqttPacket.generate({ cmd: "unsubscribe", messageId: 3, unsubscriptions: ["x/#", "y", "z"] }),
    mqttPacket.generate({ cmd: "puback", messageId: 513 }),
    mqttPacket.generate({ cmd: "connack", returnCode: 5, sessionPresent: false }),
    mqttPacket.generate({ cmd: "pingreq" }),
  ];

  it("reads the fields of every packet however the bytes are cut", () => {
    const bytes = Buffer.concat(packets);
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 40 }), (cuts) => {
        const frames = scan(bytes, cuts);
        expect(frames.map((frame) => frame.type)).toEqual([1, 3, 3, 8, 10, 4, 2, 12]);
        expect(frames.map((frame) => frame.bytes)).toEqual(packets.map((packet) => packet.length));
        expect(frames[1]).toMatchObject({ topic: "a/b", qos: 1, messageId: 77 });
        expect(frames[2]).toMatchObject({ topic: "ü/b", qos: 0 });
        expect([frames[3]!.filters, frames[4]!.filters]).toEqual([2, 3]);
        expect([frames[5]!.messageId, frames[6]!.returnCode]).toEqual([513, 5]);
      }),
    );
  });

  it("refuses a packet above its limit from its header alone", () => {
    const limits = {
      packetBytesMax: (type: number) => (type === PACKET.publish ? 1000 : 10),
      topicBytesMax: 20,
    };
    // 256 MB announced, nothing of it sent.
    expect(() => scan(Uint8Array.of(0x30, 0xff, 0xff, 0xff, 0x7f), [], limits)).toThrow(FrameError);
    expect(() => scan(Uint8Array.of(0x30, 0xff, 0xff, 0xff, 0xff, 1), [], limits)).toThrow(
      /remaining length/,
    );
    expect(() => scan(Uint8Array.of(0x30, 30, 0, 21), [], limits)).toThrow(/topic of 21 bytes/);
    expect(() => scan(Uint8Array.of(0x30, 1, 0), [], limits)).toThrow(/without a topic/);
    expect(() => scan(Uint8Array.of(0x32, 4, 0, 3, 97, 98), [], limits)).toThrow(/shorter than its topic/);
  });

  it("never throws anything but a FrameError, whatever comes", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 400 }),
        fc.array(fc.nat(400), { maxLength: 5 }),
        (bytes, cuts) => {
          try {
            scan(bytes, cuts, { packetBytesMax: () => 4096, topicBytesMax: 256 });
          } catch (error) {
            expect(error).toBeInstanceOf(FrameError);
          }
        },
      ),
    );
  });
});
