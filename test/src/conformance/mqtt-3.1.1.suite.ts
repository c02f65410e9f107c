import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { WireClient } from "../kit/mqtt-wire.js";
import { until } from "../kit/wait.js";

export interface BrokerUnderTest {
  readonly port: number;
  stop(): Promise<void>;
}

/**
 * Interoperability cases of MQTT 3.1.1, written from the OASIS clauses that each test names. The broker under test must let any
 * client use any topic, and refuse subscriptions to topics that begin with `$`.
 */
export function mqttConformance(start: () => Promise<BrokerUnderTest>): void {
  let broker: BrokerUnderTest;
  let port = 0;
  const clients: WireClient[] = [];
  beforeAll(async () => {
    broker = await start();
    ({ port } = broker);
  });
  afterAll(() => broker.stop());
  afterEach(() => clients.splice(0).forEach((client) => client.drop()));

  const raw = async (): Promise<WireClient> => keep(await WireClient.open(port));
  const open = async (clientId: string, options: object = {}): Promise<WireClient> =>
    keep(await WireClient.connect(port, { clientId, ...options }));
  const keep = (client: WireClient): WireClient => {
    clients.push(client);
    return client;
  };
  const connectPacket = (clientId: string, options: object = {}) =>
    ({
      cmd: "connect",
      protocolId: "MQTT",
      protocolVersion: 4,
      clean: true,
      keepalive: 30,
      clientId,
      ...options,
    }) as const;

  describe("CONNECT", () => {
    it("gives a client without id one of its own when the session is clean [MQTT-3.1.3-6]", async () => {
      const client = await raw();
      client.send(connectPacket(""));
      expect((await client.expect("connack")).returnCode).toBe(0);
    });
    it("refuses a client without id and without clean session with code 2 [MQTT-3.1.3-8]", async () => {
      const client = await raw();
      client.sendRaw(Uint8Array.of(0x10, 12, 0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 0, 0, 30, 0, 0));
      expect((await client.expect("connack")).returnCode).toBe(2);
      await client.expectClosed();
    });
    it("closes when the first packet is not CONNECT [MQTT-3.1.0-1]", async () => {
      const client = await raw();
      client.send({ cmd: "pingreq" });
      await client.expectClosed();
    });
    it("closes on a second CONNECT [MQTT-3.1.0-2]", async () => {
      const client = await open("twice");
      client.send(connectPacket("twice"));
      await client.expectClosed();
    });
    it("closes on another protocol name [MQTT-3.1.2-1]", async () => {
      const client = await raw();
      client.sendRaw(Uint8Array.of(0x10, 13, 0, 4, 0x48, 0x54, 0x54, 0x50, 4, 2, 0, 30, 0, 1, 0x61));
      await client.expectClosed();
    });
    it("closes when the reserved connect flag is set [MQTT-3.1.2-3]", async () => {
      const client = await raw();
      client.sendRaw(Uint8Array.of(0x10, 13, 0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 3, 0, 30, 0, 1, 0x61));
      await client.expectClosed();
      expect(client.received).toEqual([]);
    });
    it("disconnects the earlier connection of a client id [MQTT-3.1.4-2]", async () => {
      const earlier = await open("same");
      const later = await open("same");
      await earlier.expectClosed();
      await later.settle();
    });
    it("says whether it kept a session [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]", async () => {
      const present = async (clean: boolean): Promise<boolean> => {
        const client = await raw();
        client.send(connectPacket("present", { clean }));
        const { sessionPresent } = await client.expect("connack");
        await client.subscribe({ "present/#": 1 });
        client.disconnect();
        await client.expectClosed();
        return sessionPresent;
      };
      expect([
        await present(true),
        await present(false),
        await present(false),
        await present(true),
        await present(false),
      ]).toEqual([false, false, true, false, false]);
    });
    it("disconnects a client silent for one and a half keep-alives [MQTT-3.1.2-24]", async () => {
      const client = await open("silent", { keepalive: 1 });
      const from = performance.now();
      await client.expectClosed(10_000);
      expect(performance.now() - from).toBeGreaterThan(1_000);
    });
    it("answers PINGREQ with PINGRESP [MQTT-3.12.4-1]", async () => {
      const client = await open("ping");
      await client.settle();
    });
  });

  describe("will", () => {
    const will = (topic: string, options: object = {}) => ({
      will: { topic, payload: Buffer.from("gone"), qos: 1, retain: false, ...options },
    });
    it("is published when the connection is cut [MQTT-3.1.2-8]", async () => {
      const watcher = await open("will-watcher");
      await watcher.subscribe({ "will/cut": 1 });
      (await open("will-cut", will("will/cut"))).drop();
      expect((await watcher.expect("publish")).payload.toString()).toBe("gone");
    });
    it("is published when the keep-alive runs out [MQTT-3.1.2-8]", async () => {
      const watcher = await open("will-watcher-2");
      await watcher.subscribe({ "will/late": 1 });
      await open("will-late", { keepalive: 1, ...will("will/late") });
      expect((await watcher.expect("publish", 10_000)).payload.toString()).toBe("gone");
    });
    it("is discarded after DISCONNECT [MQTT-3.14.4-3]", async () => {
      const watcher = await open("will-watcher-3");
      await watcher.subscribe({ "will/kept": 1 });
      const leaver = await open("will-kept", will("will/kept"));
      leaver.disconnect();
      await leaver.expectClosed();
      await watcher.publish("will/kept", "marker", { qos: 1 });
      expect((await watcher.expect("publish")).payload.toString()).toBe("marker");
    });
    it("is retained when it says so [MQTT-3.1.2-17]", async () => {
      (await open("will-retained", will("will/retained", { retain: true }))).drop();
      await until("the will is retained", async () => {
        const late = await open(`will-late-reader-${performance.now()}`);
        await late.subscribe({ "will/retained": 0 });
        await late.settle();
        return late.publishes().some((publish) => publish.retain && publish.payload === "gone");
      });
    });
  });

  describe("retained messages", () => {
    it("reach a later subscriber with RETAIN set, a present one without [MQTT-3.3.1-6] [MQTT-3.3.1-8] [MQTT-3.3.1-9]", async () => {
      const present = await open("retain-present");
      await present.subscribe({ "retain/a": 1 });
      const writer = await open("retain-writer");
      await writer.publish("retain/a", "one", { qos: 1, retain: true });
      expect((await present.expect("publish")).retain).toBe(false);
      const late = await open("retain-late");
      await late.subscribe({ "retain/+": 1 });
      const message = await late.expect("publish");
      expect([message.retain, message.payload.toString()]).toEqual([true, "one"]);
    });
    it("are replaced by the next one [MQTT-3.3.1-5]", async () => {
      const writer = await open("retain-twice");
      await writer.publish("retain/b", "one", { qos: 1, retain: true });
      await writer.publish("retain/b", "two", { qos: 1, retain: true });
      const late = await open("retain-late-2");
      await late.subscribe({ "retain/b": 1 });
      await late.settle();
      expect(late.publishes().map((publish) => publish.payload)).toEqual(["two"]);
    });
    it("are removed by an empty one [MQTT-3.3.1-10] [MQTT-3.3.1-11]", async () => {
      const writer = await open("retain-clear");
      await writer.publish("retain/c", "one", { qos: 1, retain: true });
      await writer.publish("retain/c", "", { qos: 1, retain: true });
      const late = await open("retain-late-3");
      await late.subscribe({ "retain/c": 1 });
      await late.settle();
      expect(late.publishes()).toEqual([]);
    });
    it("are not touched by messages without RETAIN [MQTT-3.3.1-12]", async () => {
      const writer = await open("retain-keep");
      await writer.publish("retain/d", "kept", { qos: 1, retain: true });
      await writer.publish("retain/d", "passing", { qos: 1 });
      const late = await open("retain-late-4");
      await late.subscribe({ "retain/d": 1 });
      expect((await late.expect("publish")).payload.toString()).toBe("kept");
    });
    it("come again when a subscription is repeated [MQTT-3.8.4-3]", async () => {
      const writer = await open("retain-again");
      await writer.publish("retain/e", "again", { qos: 1, retain: true });
      await writer.subscribe({ "retain/e": 0 });
      expect((await writer.expect("publish")).payload.toString()).toBe("again");
      await writer.subscribe({ "retain/e": 0 });
      expect((await writer.expect("publish")).payload.toString()).toBe("again");
    });
  });

  describe("SUBSCRIBE", () => {
    it("answers each filter in order with its granted QoS [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT-3.9.3-1]", async () => {
      const client = await open("granted");
      expect(await client.subscribe({ "g/a": 0, "g/b": 1, "g/c": 2 })).toEqual([0, 1, 2]);
    });
    it("refuses one filter with 128 and serves the others of the same packet [MQTT-3.9.3-2]", async () => {
      const client = await open("refused");
      expect(await client.subscribe({ "$refused/x": 1, "yes/x": 1 })).toEqual([128, 1]);
      await client.publish("yes/x", "seen", { qos: 1 });
      await client.settle();
      expect(client.publishes().map((publish) => publish.payload)).toEqual(["seen"]);
    });
    it("closes on a SUBSCRIBE without filters [MQTT-3.8.3-3]", async () => {
      const client = await open("empty-subscribe");
      client.sendRaw(Uint8Array.of(0x82, 2, 0, 9));
      await client.expectClosed();
    });
    it("closes on wrong flags in the fixed header [MQTT-3.8.1-1]", async () => {
      const client = await open("wrong-flags");
      client.sendRaw(Uint8Array.of(0x80, 6, 0, 9, 0, 1, 0x61, 0));
      await client.expectClosed();
    });
    it("delivers at the lower of both QoS [MQTT-3.8.4-6]", async () => {
      const client = await open("lower");
      await client.subscribe({ "low/0": 0, "low/1": 1 });
      await client.publish("low/0", "a", { qos: 1 });
      await client.publish("low/1", "b", { qos: 2 });
      const [first, second] = [await client.expect("publish"), await client.expect("publish")];
      expect([first.qos, second.qos]).toEqual([0, 1]);
    });
    it("delivers to overlapping subscriptions at the highest QoS of them [MQTT-3.3.5-1]", async () => {
      const client = await open("overlap");
      await client.subscribe({ "over/#": 2, "over/+": 1 });
      await client.publish("over/x", "o", { qos: 2 });
      const first = await client.expect("publish");
      if (first.qos === 2) client.send({ cmd: "pubrec", messageId: first.messageId! });
      await client.settle();
      expect(Math.max(first.qos, ...client.publishes().map((publish) => publish.qos))).toBe(2);
    });
    it("stops delivering after UNSUBSCRIBE and answers it in any case [MQTT-3.10.4-1] [MQTT-3.10.4-5]", async () => {
      const client = await open("unsubscribe");
      await client.subscribe({ "un/a": 1 });
      client.send({ cmd: "unsubscribe", messageId: 40, unsubscriptions: ["un/a", "un/never"] });
      expect((await client.expect("unsuback")).messageId).toBe(40);
      await client.publish("un/a", "late", { qos: 1 });
      await client.settle();
      expect(client.publishes()).toEqual([]);
    });
  });

  describe("topics", () => {
    it.each([
      ["sport/tennis/+", ["sport/tennis/one", "sport/tennis/"], ["sport/tennis", "sport/tennis/one/two"]],
      ["sport/#", ["sport", "sport/a", "sport/a/b"], ["sports"]],
      ["+/+", ["/finance", "a/b"], ["a", "a/b/c"]],
      ["/+", ["/finance"], ["finance"]],
      ["+", ["finance"], ["/finance"]],
      ["Case/Matters", ["Case/Matters"], ["case/matters"]],
      ["a//b", ["a//b"], ["a/b"]],
    ])("%s matches %j and not %j [MQTT-4.7.1-2] [MQTT-4.7.1-3]", async (filter, matching, others) => {
      const client = await open(`filter-${performance.now()}`);
      await client.subscribe({ [filter]: 0 });
      for (const topic of [...others, ...matching]) await client.publish(topic, "x", { qos: 1 });
      await client.settle();
      const live = client.publishes().filter((publish) => !publish.retain);
      expect(live.map((publish) => publish.topic)).toEqual(matching);
    });
    it("keeps topics that begin with $ from wildcards [MQTT-4.7.2-1]", async () => {
      const client = await open("dollar");
      await client.subscribe({ "#": 0, "+/heartbeat": 0 });
      const other = await open("dollar-other");
      other.send({
        cmd: "publish",
        topic: "$own/heartbeat",
        payload: "hidden",
        qos: 0,
        retain: false,
        dup: false,
      });
      const writer = await open("dollar-writer");
      await writer.publish("dollar/marker", "seen", { qos: 1 });
      await until("the marker arrives", () =>
        client.publishes().some((publish) => publish.topic === "dollar/marker"),
      );
      expect(client.publishes().filter((publish) => publish.topic.startsWith("$"))).toEqual([]);
    });
    it.each([
      ["a wildcard in a PUBLISH [MQTT-3.3.2-2]", Uint8Array.of(0x30, 6, 0, 3, 0x61, 0x2f, 0x2b, 0x78)],
      ["an empty topic in a PUBLISH [MQTT-4.7.3-1]", Uint8Array.of(0x30, 3, 0, 0, 0x78)],
      ["QoS 3 [MQTT-3.3.1-4]", Uint8Array.of(0x36, 6, 0, 1, 0x61, 0, 9, 0x78)],
      ["a reserved packet type", Uint8Array.of(0xf0, 0)],
      ["a remaining length of five bytes", Uint8Array.of(0x30, 0xff, 0xff, 0xff, 0xff, 0x01)],
    ])("closes on %s and goes on serving others", async (_, bytes) => {
      const client = await open(`malformed-${performance.now()}`);
      client.sendRaw(bytes);
      await client.expectClosed();
      await (await open("still-here")).settle();
    });
  });

  describe("delivery", () => {
    it("acknowledges QoS 1 with the id that it was sent with [MQTT-4.3.2-2]", async () => {
      const client = await open("qos1");
      client.send({
        cmd: "publish",
        topic: "q/1",
        payload: "x",
        qos: 1,
        messageId: 777,
        retain: false,
        dup: false,
      });
      expect((await client.expect("puback")).messageId).toBe(777);
    });
    it("passes a QoS 2 message on exactly once, however often PUBLISH is repeated [MQTT-4.3.3-2]", async () => {
      const reader = await open("qos2-reader");
      await reader.subscribe({ "q/2": 0 });
      const writer = await open("qos2-writer");
      const packet = {
        cmd: "publish",
        topic: "q/2",
        payload: "once",
        qos: 2,
        messageId: 5,
        retain: false,
      } as const;
      writer.send({ ...packet, dup: false });
      await writer.expect("pubrec");
      writer.send({ ...packet, dup: true });
      await writer.expect("pubrec");
      writer.send({ cmd: "pubrel", messageId: 5 });
      await writer.expect("pubcomp");
      await until("it arrives", () => reader.publishes().length > 0);
      await reader.settle();
      expect(reader.publishes().length).toBe(1);
    });
    it("keeps messages for an absent client with a session, in order [MQTT-3.1.2-5] [MQTT-4.6.0-6]", async () => {
      const first = await open("absent", { clean: false });
      await first.subscribe({ "absent/#": 1 });
      first.disconnect();
      await first.expectClosed();
      const writer = await open("absent-writer");
      for (const text of ["1", "2", "3"]) await writer.publish("absent/x", text, { qos: 1 });
      const back = await open("absent", { clean: false });
      for (const text of ["1", "2", "3"]) {
        const message = await back.expect("publish");
        expect(message.payload.toString()).toBe(text);
        back.send({ cmd: "puback", messageId: message.messageId! });
      }
    });
    it("forgets the session of a client that comes back clean [MQTT-3.1.2-6]", async () => {
      const first = await open("clean-return", { clean: false });
      await first.subscribe({ "clean/#": 1 });
      first.disconnect();
      await first.expectClosed();
      (await open("clean-return", { clean: true })).disconnect();
      const writer = await open("clean-writer");
      await writer.publish("clean/x", "lost", { qos: 1 });
      const back = await open("clean-return", { clean: false });
      await back.settle();
      expect(back.publishes()).toEqual([]);
    });
    it("sends unacknowledged messages again with DUP after a reconnect [MQTT-4.4.0-1] [MQTT-3.3.1-1]", async () => {
      const first = await open("again", { clean: false });
      await first.subscribe({ "again/#": 1 });
      const writer = await open("again-writer");
      await writer.publish("again/x", "m", { qos: 1 });
      expect((await first.expect("publish")).dup).toBe(false);
      first.drop();
      await first.expectClosed();
      const back = await open("again", { clean: false });
      const again = await back.expect("publish");
      expect([again.dup, again.payload.toString()]).toEqual([true, "m"]);
    });
    it("keeps the order of one publisher's messages [MQTT-4.6.0-5]", async () => {
      const reader = await open("order-reader");
      await reader.subscribe({ "order/x": 1 });
      const writer = await open("order-writer");
      for (let index = 0; index < 200; index++) {
        writer.send({
          cmd: "publish",
          topic: "order/x",
          payload: String(index),
          qos: 1,
          messageId: index + 1,
          retain: false,
          dup: false,
        });
      }
      await until("all arrive", () => reader.publishes().length === 200);
      expect(reader.publishes().map((publish) => Number(publish.payload))).toEqual(
        Array.from({ length: 200 }, (_, index) => index),
      );
    });
    it("closes after DISCONNECT and takes nothing more [MQTT-3.14.4-2]", async () => {
      const client = await open("bye");
      client.send({ cmd: "disconnect" });
      await client.expectClosed();
    });
  });
}
