import { createHash } from "node:crypto";
import { constants, deflateRawSync } from "node:zlib";
import {
  LIMITS,
  decodeCbor,
  emptyStatistics,
  encodeCbor,
  encodeMessage,
  type CborValue,
  type DeviceDetail,
  type ErrorCode,
  type UpKind,
} from "@fieldloop/protocol";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { TEST_FACTS } from "../kit/api.js";
import { WireClient } from "../kit/mqtt-wire.js";
import {
  BASE_TIME,
  WireDevice,
  connectFields,
  predictionBatch,
  predictionRows,
  sampleMessage,
  sampleMetadata,
  type DeviceIdentity,
} from "../kit/wire-device.js";
import type { Stage } from "./stage.js";

const KINDS: readonly UpKind[] = ["presence", "state", "predictions", "profile", "sample", "event"];
const IMAGE = Buffer.from("a payload that is stored as it came");

/** A sound message of each kind, first of its boot. */
function sound(kind: UpKind, boot: number, seq = 1): Uint8Array {
  const delivery = { boot, seq, prev: seq - 1 };
  const version = { model: "shapes", version: 1 };
  switch (kind) {
    case "presence":
      return encodeMessage("presence", { online: true, boot, agentVersion: "0.1.0" });
    case "state":
      return encodeMessage("state", {
        time: BASE_TIME,
        boot,
        agentVersion: "0.1.0",
        facts: TEST_FACTS,
        running: null,
        previous: null,
        deployment: null,
        desiredRevision: 1,
        configId: null,
        warnings: [],
        counters: {
          predictions: 0,
          framesDropped: 0,
          framesFailed: 0,
          samplesTaken: 0,
          recordsEvicted: 0,
          hostRestarts: 0,
        },
        spool: { records: 0, bytes: 0, bytesMax: 1 },
        source: "test",
      });
    case "predictions":
      return predictionBatch(delivery);
    case "profile":
      return encodeMessage("profile", {
        ...delivery,
        ...version,
        from: BASE_TIME,
        to: BASE_TIME,
        statistics: emptyStatistics(),
        framesDropped: 0,
        framesFailed: 0,
      });
    case "sample":
      return sampleMessage(`smp_attack${boot}x${seq}`, IMAGE, delivery);
    case "event":
      return encodeMessage("event", {
        ...delivery,
        time: BASE_TIME,
        data: { type: "warning", code: "storage_full", severity: "warning", message: "full", active: true },
      });
  }
}

/** A sound message with one field set to something else; `undefined` leaves it out. */
function changed(kind: UpKind, path: string, value: CborValue | undefined): (boot: number) => Uint8Array {
  return (boot) => {
    const root = decodeCbor(sound(kind, boot)) as Record<string, unknown>;
    const keys = path.split(".");
    let at = root;
    for (const key of keys.slice(0, -1)) at = at[key] as Record<string, unknown>;
    at[keys.at(-1)!] = value;
    return encodeCbor(root as CborValue);
  };
}

const always = (bytes: Uint8Array) => (): Uint8Array => bytes;
const hex = (text: string) => always(Buffer.from(text.replaceAll(" ", ""), "hex"));

type Verdict =
  /** Set aside in the dead letters with this code. */
  | { readonly aside: ErrorCode }
  /** Refused by the broker with this code, which closes the connection. */
  | { readonly refused: ErrorCode }
  /** Neither stored nor set aside, and counted as this. */
  | { readonly counted: "gaps" | "superseded" | "duplicates" }
  /** Taken in as it is. */
  | { readonly stored: number };

interface MessageRow {
  readonly name: string;
  readonly kind: UpKind;
  readonly message: (boot: number) => Uint8Array;
  /** Sound messages that the device sends before it; `boot` is free for them. */
  readonly before?: (boot: number) => Uint8Array[];
  readonly verdict: Verdict;
}

const row = (
  kind: UpKind,
  name: string,
  message: (boot: number) => Uint8Array,
  verdict: Verdict,
  before?: (boot: number) => Uint8Array[],
): MessageRow => ({
  name: `${kind}: ${name}`,
  kind,
  message,
  verdict,
  ...(before ? { before } : {}),
});
const aside = (code: ErrorCode): Verdict => ({ aside: code });
const schema = (
  kind: UpKind,
  path: string,
  value: CborValue | undefined,
  name = `${path} = ${JSON.stringify(value)?.slice(0, 40)}`,
): MessageRow => row(kind, name, changed(kind, path, value), aside("message_schema"));

const BYTES_MAX: Readonly<Record<UpKind, number>> = {
  presence: LIMITS.presenceBytesMax,
  state: LIMITS.stateBytesMax,
  predictions: LIMITS.predictionsBytesMax,
  profile: LIMITS.profileBytesMax,
  sample: LIMITS.samplePartBytesMax + LIMITS.sampleMetadataBytesMax,
  event: LIMITS.eventBytesMax,
};

/** What every decoder must refuse. */
const ENCODINGS: readonly MessageRow[] = KINDS.flatMap((kind) => [
  row(kind, "garbage", hex("1c fe 03 99 42 00 17"), aside("cbor_malformed")),
  row(
    kind,
    "a map or list without fields",
    always(encodeCbor(kind === "predictions" ? [] : {})),
    aside("message_schema"),
  ),
  row(
    kind,
    "another message",
    (boot) => sound(kind === "event" ? "profile" : "event", boot),
    aside("message_schema"),
  ),
  row(
    kind,
    "cut in the middle",
    (boot) => sound(kind, boot).subarray(0, sound(kind, boot).length >> 1),
    aside("cbor_truncated"),
  ),
  row(
    kind,
    "a byte too many",
    (boot) => Buffer.concat([sound(kind, boot), Buffer.from([0])]),
    aside("cbor_trailing_bytes"),
  ),
  row(kind, "a bignum", hex("a1 64 626f6f74 c2 49 010000000000000000"), aside("cbor_tag_refused")),
  row(kind, "a key twice", hex("a2 64 626f6f74 01 64 626f6f74 02"), aside("cbor_duplicate_key")),
  row(kind, "an indefinite length", hex("bf 64 626f6f74 01 ff"), aside("cbor_indefinite_length")),
  row(kind, "a byte above its limit", always(Buffer.alloc(BYTES_MAX[kind] + 1)), {
    refused: "message_too_large",
  }),
  row(kind, "no payload", always(Buffer.alloc(0)), { refused: "message_too_large" }),
]);

const CBOR: readonly MessageRow[] = [
  row("event", "nested nine deep", hex("81 81 81 81 81 81 81 81 81 00"), aside("cbor_too_deep")),
  row("event", "nested 60,000 deep", always(Buffer.alloc(60_000, 0x81)), aside("cbor_too_deep")),
  row(
    "predictions",
    "100,001 items",
    always(Buffer.concat([Buffer.from("9a000186a1", "hex"), Buffer.alloc(100_001)])),
    aside("cbor_too_many_items"),
  ),
  row(
    "predictions",
    "a bignum of 120 KB",
    always(Buffer.concat([Buffer.from("c25a0001d4c0", "hex"), Buffer.alloc(120_000, 0xff)])),
    aside("cbor_tag_refused"),
  ),
  row("event", "a list that claims 2^32 items", hex("9a ffffffff 00"), aside("cbor_truncated")),
  row("event", "a map that claims 2^50 entries", hex("bb 0004000000000000 00"), aside("cbor_truncated")),
  row("event", "bytes that claim 2^31", hex("5a 80000000 00"), aside("cbor_truncated")),
  row("event", "an integer above 2^53", hex("1b ffffffffffffffff"), aside("cbor_malformed")),
  row("event", "text that is not UTF-8", hex("a1 64 ff6f6f74 01"), aside("cbor_malformed")),
  row("event", "a number as key", hex("a1 01 01"), aside("cbor_key_type")),
  row("event", "a date tag", hex("c1 1a 6553f100"), aside("cbor_tag_refused")),
  row("event", "an odd number of bytes of 16-bit numbers", hex("d8 45 43 010203"), aside("cbor_malformed")),
  row("event", "a break alone", hex("ff"), aside("cbor_indefinite_length")),
  row("event", "undefined", hex("f7"), aside("cbor_malformed")),
  row(
    "event",
    "__proto__ as key",
    hex("a1 69 5f5f70726f746f5f5f a1 64 626f6f74 01"),
    aside("message_schema"),
  ),
];

/** Positions in the list that a batch is on the wire. */
const BATCH = {
  boot: 0,
  seq: 1,
  model: 3,
  version: 4,
  prefix: 5,
  firstN: 6,
  firstTime: 7,
  count: 8,
  flags: 9,
  signals: 10,
  payload: 11,
} as const;
const batchField = (field: keyof typeof BATCH, value: CborValue) =>
  changed("predictions", String(BATCH[field]), value);
const batchFields = (fields: Partial<Record<keyof typeof BATCH, CborValue>>) => (boot: number) => {
  const list = decodeCbor(sound("predictions", boot)) as CborValue[];
  for (const [field, value] of Object.entries(fields)) list[BATCH[field as keyof typeof BATCH]] = value;
  return encodeCbor(list);
};
const deflated = (bytes: number, fill = 0) =>
  new Uint8Array(deflateRawSync(Buffer.alloc(bytes, fill), { level: 9 }));
/** So many mebibytes of zeros: the same blocks again and again (RFC 1951, section 3.2.3), and an empty one that is the last. */
const bomb = (mebibytes: number) => {
  const blocks = deflateRawSync(Buffer.alloc(2 ** 20), { level: 9, finishFlush: constants.Z_FULL_FLUSH });
  return new Uint8Array(Buffer.concat([...Array<Buffer>(mebibytes).fill(blocks), deflateRawSync("")]));
};

const BATCHES: readonly MessageRow[] = [
  ...(
    [
      ["boot", 0],
      ["boot", 1.5],
      ["seq", 0],
      ["model", "../tiny"],
      ["model", "x".repeat(65)],
      ["version", 0],
      ["prefix", new Uint8Array(7)],
      ["firstN", -1],
      ["firstTime", 9e15],
      ["firstTime", -1],
      ["count", 0],
      ["count", 2_001],
      ["flags", 4],
      ["signals", new Uint8Array(17)],
      ["payload", "text"],
    ] as [keyof typeof BATCH, CborValue][]
  ).map(([field, value]) =>
    row(
      "predictions",
      `${field} = ${JSON.stringify(value).slice(0, 30)}`,
      batchField(field, value),
      aside("message_schema"),
    ),
  ),
  row(
    "predictions",
    "a signal that nobody knows",
    batchField("signals", Uint8Array.of(255)),
    aside("batch_malformed"),
  ),
  row("predictions", "columns too short", batchField("count", 11), aside("batch_malformed")),
  row("predictions", "columns too long", batchField("count", 9), aside("batch_malformed")),
  row(
    "predictions",
    "columns that do not inflate",
    batchField("payload", new Uint8Array(40).fill(0xff)),
    aside("batch_malformed"),
  ),
  row("predictions", "no columns", batchField("payload", new Uint8Array(0)), aside("batch_malformed")),
  row("predictions", "a deflate bomb of 100 MB", batchField("payload", bomb(100)), aside("batch_malformed")),
  row(
    "predictions",
    "a deflate bomb within the columns' bytes",
    batchFields({ count: 2_000, payload: bomb(11) }),
    aside("batch_malformed"),
  ),
  row(
    "predictions",
    "655,350 boxes",
    batchFields({ flags: 2, signals: new Uint8Array(0), payload: deflated(70, 0xff) }),
    aside("batch_malformed"),
  ),
  row(
    "predictions",
    "times of the year 2200",
    (boot) => predictionBatch({ boot, rows: predictionRows(10, 7_260_000_000_000) }),
    { stored: 10 },
  ),
  row("predictions", "times of 1970", (boot) => predictionBatch({ boot, rows: predictionRows(10, 0) }), {
    stored: 10,
  }),
  row("predictions", "times at the end of time", batchField("firstTime", 8_640_000_000_000_000), {
    stored: 10,
  }),
  row(
    "predictions",
    "more fields than are known",
    (boot) => encodeCbor([...(decodeCbor(sound("predictions", boot)) as CborValue[]), "more"]),
    { stored: 10 },
  ),
];

const DELIVERY: readonly MessageRow[] = (["predictions", "profile", "sample", "event"] as const).flatMap(
  (kind) => [
    row(
      kind,
      "of a boot before",
      (boot) => sound(kind, boot - 1),
      { counted: "superseded" },
      (boot) => [sound(kind, boot)],
    ),
    row(
      kind,
      "twice",
      (boot) => sound(kind, boot),
      { counted: "duplicates" },
      (boot) => [sound(kind, boot)],
    ),
    row(
      kind,
      "after a gap",
      (boot) => sound(kind, boot, 5),
      { counted: "gaps" },
      (boot) => [sound(kind, boot)],
    ),
  ],
);

const EVENTS: readonly MessageRow[] = [
  schema("event", "time", -1),
  schema("event", "time", 1e300),
  schema("event", "data", null),
  schema("event", "data.type", "explosion"),
  schema("event", "data.code", "no_such_code"),
  schema("event", "data.severity", "fatal"),
  schema("event", "data.active", undefined),
  schema("event", "data.message", "x".repeat(2_001)),
  schema("event", "data", { type: "feedback", predictionBoot: 1, items: [] }),
  schema(
    "event",
    "data",
    { type: "feedback", predictionBoot: 1, items: Array.from({ length: 1_001 }, (_, n) => ({ n })) },
    "1,001 items of feedback",
  ),
  schema("event", "data", { type: "feedback", predictionBoot: 0, items: [{ n: 0 }] }),
  schema("event", "data", {
    type: "deployment",
    deployment: "dep_1",
    model: "shapes",
    version: 1,
    packageSha256: "x",
    state: "active",
  }),
  schema("event", "data", {
    type: "deployment",
    deployment: "dep_1",
    model: "shapes",
    version: 1,
    packageSha256: "0".repeat(64),
    state: "won",
  }),
  schema("event", "data", { type: "eviction", stream: "sample", records: -1, bytes: 0 }),
  schema("event", "data", { type: "crash", process: "kernel", reason: "?" }),
];

const STATES: readonly MessageRow[] = [
  schema("presence", "boot", 0),
  schema("presence", "online", "yes"),
  schema("presence", "agentVersion", "x".repeat(33)),
  schema("state", "facts.cpuCount", 0),
  schema("state", "facts.cpuFlags", new Array<string>(65).fill("x")),
  schema("state", "running", { model: "shapes" }),
  schema(
    "state",
    "warnings",
    new Array<CborValue>(33).fill({ code: "x", severity: "info", message: "", since: 0 }),
  ),
  schema("state", "counters.predictions", -1),
  schema("state", "spool", undefined),
  schema("profile", "statistics.confidence", new Array<number>(63).fill(0)),
  schema("profile", "statistics.classes", new Array<number>(10_002).fill(0), "10,002 classes"),
  schema(
    "profile",
    "statistics.signals",
    { unheard: new Array<number>(64).fill(0) },
    "a signal that nobody knows",
  ),
  schema("profile", "to", 1e300),
];

const SAMPLES: readonly MessageRow[] = [
  schema("sample", "sample", "../../etc/passwd"),
  schema("sample", "sample", "smp_UPPERCASE"),
  schema("sample", "part", 1),
  schema("sample", "parts", 193),
  schema("sample", "metadata", undefined),
  schema("sample", "payload", new Uint8Array(0)),
  schema("sample", "payload", "text"),
  schema("sample", "metadata.mediaType", "image/gif"),
  schema("sample", "metadata.mediaType", "text/html"),
  schema("sample", "metadata.bytes", 0),
  schema("sample", "metadata.bytes", LIMITS.sampleBytesMax + 1),
  schema("sample", "metadata.probability", 0),
  schema("sample", "metadata.confidence", Number.NaN, "metadata.confidence = NaN"),
  schema("sample", "metadata.signals", { unheard: 1 }),
  schema("sample", "metadata.embedding", new Float32Array(4_097), "an embedding of 4,097"),
  schema(
    "sample",
    "metadata.boxes",
    new Array<CborValue>(301).fill({ x0: 0, y0: 0, x1: 1, y1: 1, class: 0, score: 1 }),
    "301 boxes",
  ),
  row(
    "sample",
    "bytes unlike the announced hash",
    changed("sample", "metadata.sha256", "0".repeat(64)),
    aside("message_schema"),
  ),
  row(
    "sample",
    "bytes unlike the announced length",
    changed("sample", "metadata.bytes", IMAGE.length + 1),
    aside("message_schema"),
  ),
  row(
    "sample",
    "another device's sample",
    (boot) => sampleMessage("smp_control0001", IMAGE, { boot }),
    aside("already_exists"),
  ),
  row("sample", "the last part alone", (boot) => part(boot, 1, 1, 2), aside("message_schema")),
  row("sample", "a middle part alone", (boot) => part(boot, 1, 1, 3), aside("message_schema")),
  row(
    "sample",
    "a part left out",
    (boot) => part(boot, 2, 2, 3),
    aside("message_schema"),
    (boot) => [part(boot, 1, 0, 3)],
  ),
  row(
    "sample",
    "another number of parts than before",
    (boot) => part(boot, 2, 1, 2),
    aside("message_schema"),
    (boot) => [part(boot, 1, 0, 3)],
  ),
  row(
    "sample",
    "parts that add up to another hash",
    (boot) => part(boot, 2, 1, 2, "other bytes"),
    aside("message_schema"),
    (boot) => [part(boot, 1, 0, 2)],
  ),
];

/** One part of a sample whose bytes are `IMAGE` for each part. */
function part(boot: number, seq: number, index: number, parts: number, text?: string): Uint8Array {
  const whole = Buffer.concat(new Array<Buffer>(parts).fill(IMAGE));
  const payload = text === undefined ? IMAGE : Buffer.from(text);
  return encodeMessage("sample", {
    boot,
    seq,
    prev: seq - 1,
    sample: `smp_parts${boot}x`,
    part: index,
    parts,
    payload: Uint8Array.from(payload),
    ...(index === 0 ? { metadata: sampleMetadata(whole) } : {}),
  });
}

interface TopicRow {
  readonly topic: string;
  readonly retain?: boolean;
  readonly code: ErrorCode;
}

const TOPICS: readonly TopicRow[] = [
  { topic: "fieldloop/1/control/up/predictions", code: "topic_forbidden" },
  { topic: "fieldloop/1/control/down/command", code: "topic_forbidden" },
  { topic: "fieldloop/1/attacker/down/ack", code: "topic_forbidden" },
  { topic: "fieldloop/1/attacker/up/unknown", code: "topic_malformed" },
  { topic: "fieldloop/1/attacker/up", code: "topic_malformed" },
  { topic: "fieldloop/1/attacker/up/event/more", code: "topic_malformed" },
  { topic: "fieldloop/2/attacker/up/event", code: "topic_malformed" },
  { topic: "fieldloop/1//up/event", code: "topic_malformed" },
  { topic: "fieldloop/1/../up/event", code: "topic_malformed" },
  { topic: "/fieldloop/1/attacker/up/event", code: "topic_malformed" },
  { topic: "FIELDLOOP/1/attacker/up/event", code: "topic_malformed" },
  { topic: "fieldloop/1/Attacker/up/event", code: "topic_malformed" },
  { topic: "$SYS/broker/uptime", code: "topic_malformed" },
  { topic: "$share/g/fieldloop/1/attacker/up/event", code: "topic_malformed" },
  { topic: "fieldloop/1/attacker/up/event", retain: true, code: "topic_forbidden" },
  { topic: "fieldloop/1/attacker/up/predictions", retain: true, code: "topic_forbidden" },
  { topic: "fieldloop/1/attacker/up/sample", retain: true, code: "topic_forbidden" },
];

/** Bytes that end the connection, after CONNECT was accepted or instead of it. */
const AFTER_CONNECT: readonly (readonly [name: string, bytes: Buffer])[] = [
  ["a packet of 300 KB", publishBytes("fieldloop/1/attacker/up/sample", 300_000)],
  ["a packet that announces 256 MB", Buffer.from("30ffffff7f", "hex")],
  ["a remaining length of five bytes", Buffer.from("30ffffffff01", "hex")],
  ["a topic of 300 bytes", publishBytes(`fieldloop/1/${"a".repeat(290)}`, 10)],
  ["a topic with NUL", publishBytes("fieldloop/1/attacker/up/\0", 10)],
  ["a topic with a wildcard", publishBytes("fieldloop/1/+/up/event", 10)],
  ["a topic of 100 levels", publishBytes("a/".repeat(100), 10)],
  ["an empty topic", publishBytes("", 10)],
  ["a PUBLISH without a topic", Buffer.from("3000", "hex")],
  ["a PUBLISH shorter than its topic", Buffer.from("300300ff61", "hex")],
  ["a PUBLISH of QoS 2", publishBytes("fieldloop/1/attacker/up/event", 10, 0x34)],
  ["a PUBLISH of QoS 3", publishBytes("fieldloop/1/attacker/up/event", 10, 0x36)],
  ["a second CONNECT", connectBytes({ clientId: "attacker" })],
  ["packet type 0", Buffer.from("0000", "hex")],
  ["packet type 15", Buffer.from("f000", "hex")],
  ["SUBSCRIBE with reserved flags 0", Buffer.from("8006000100016100", "hex")],
  ["SUBSCRIBE without a filter", Buffer.from("82020001", "hex")],
  [
    "SUBSCRIBE with nine filters",
    Buffer.concat([Buffer.from("82260001", "hex"), Buffer.from("00016100".repeat(9), "hex")]),
  ],
  ["SUBSCRIBE cut short", Buffer.from("8205000100ff61", "hex")],
];
const INSTEAD_OF_CONNECT: readonly (readonly [name: string, bytes: Buffer])[] = [
  ["a PUBLISH", publishBytes("fieldloop/1/control/up/predictions", 10)],
  ["a SUBSCRIBE", Buffer.from("8208000100033f2f2300", "hex")],
  ["a PINGREQ", Buffer.from("c000", "hex")],
  ["5 KB of CONNECT", connectBytes({ clientId: "attacker", username: "a".repeat(5_000) })],
  ["200 MB of CONNECT, announced", Buffer.from("10ffffff5f", "hex")],
  ["HTTP", Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")],
  ["a TLS hello", Buffer.from("16030102000100", "hex")],
  ["another protocol's name", connectBytes({ clientId: "attacker", protocol: "MQXX" })],
  ["protocol level 9", connectBytes({ clientId: "attacker", level: 9 })],
  ["CONNECT with the reserved flag", connectBytes({ clientId: "attacker", flags: 0x03 })],
  ["a client id of 65", connectBytes({ clientId: "a".repeat(65) })],
  ["no client id", connectBytes({ clientId: "" })],
];

export function mqttRows(stage: () => Stage): void {
  describe("MQTT", () => {
    let identity: DeviceIdentity;
    let device: WireDevice;
    let boot = 100;
    let followUps = 0;
    let taken = 0;

    beforeAll(async () => {
      identity = await stage().admin.enrol("attacker");
      device = await WireDevice.connect(stage().server.mqttPort, identity);
    });
    afterAll(() => device.wire.drop());

    /** After each row the attacker itself is served as well, in a new boot. */
    afterEach(async () => {
      stage().count("MQTT");
      if (device.wire.closed) device = await WireDevice.connect(stage().server.mqttPort, identity);
      boot += 10;
      followUps++;
      const served = async (): Promise<void> => {
        await device.publish("predictions", predictionBatch({ boot }));
        await device.acked("predictions", boot, 1);
        const { predictionsTotal } = await stage().admin.ok<DeviceDetail>("GET", "/api/v1/devices/attacker");
        expect(predictionsTotal).toBe(followUps * 10 + taken);
      };
      await Promise.all([served(), stage().intact()]);
    });

    it.each([...ENCODINGS, ...CBOR, ...BATCHES, ...DELIVERY, ...EVENTS, ...STATES, ...SAMPLES])(
      "$name",
      async ({ kind, message, before, verdict }) => {
        boot += 10;
        for (const first of before?.(boot) ?? []) {
          await device.publish(kind, first);
          if (kind === "predictions") taken += 10;
        }
        const from = stage().server.log.length;
        const counted = "counted" in verdict ? await stage().metric("fieldloop_ingest", verdict.counted) : 0;
        const sent = device.publish(kind, message(boot)).catch((error: unknown) => error);
        if ("aside" in verdict) return stage().setAside("attacker", kind, verdict.aside, from);
        if ("refused" in verdict) {
          await stage().logged({ device: "attacker", code: verdict.refused }, from);
          await device.wire.expectClosed();
          return;
        }
        await sent;
        if ("stored" in verdict) {
          taken += verdict.stored;
          return device.acked("predictions", boot, 1);
        }
        await expect
          .poll(() => stage().metric("fieldloop_ingest", verdict.counted), { interval: 5 })
          .toBe(counted + 1);
      },
    );

    it.each(TOPICS)("topic $topic (retained: $retain)", async ({ topic, retain, code }) => {
      const from = stage().server.log.length;
      device.wire.send({
        cmd: "publish",
        topic,
        payload: "x",
        qos: 1,
        messageId: 9,
        retain: retain ?? false,
        dup: false,
      });
      await stage().logged({ device: "attacker", code }, from);
      await device.wire.expectClosed();
    });

    it.each(AFTER_CONNECT)("%s after CONNECT", async (_name, bytes) => {
      device.wire.sendRaw(bytes);
      await device.wire.expectClosed();
    });

    it.each(INSTEAD_OF_CONNECT)("%s instead of CONNECT", async (_name, bytes) => {
      const client = await WireClient.open(stage().server.mqttPort);
      client.sendRaw(bytes);
      await client.expectClosed();
      expect(client.received.every((packet) => packet.cmd === "connack" && packet.returnCode !== 0)).toBe(
        true,
      );
    });

    it.each([
      ["no password", { password: undefined }, 4],
      ["an empty password", { password: "" }, 4],
      ["a wrong password", { password: "fld.attacker.wrong" }, 4],
      ["an API token", { password: "admin" }, 4],
      ["another device's credential", { password: "control" }, 4],
      ["another user name", { username: "control" }, 4],
      ["no user name", { username: undefined, password: undefined }, 4],
      ["another device's id with its own credential", { clientId: "control", username: "control" }, 4],
      [
        "a device that nobody enrolled",
        { clientId: "nobody", username: "nobody", password: "fld.nobody.x" },
        4,
      ],
      ["a client id with a wildcard", { clientId: "+", username: "+" }, 4],
    ] as const)("CONNECT with %s", async (_name, change, returnCode) => {
      const client = await WireClient.open(stage().server.mqttPort);
      const secrets: Record<string, string> = {
        admin: stage().admin.token!,
        control: stage().controlIdentity.credential,
      };
      const fields: Record<string, unknown> = { ...connectFields(identity), ...change };
      if (typeof fields.password === "string")
        fields.password = Buffer.from(secrets[fields.password] ?? fields.password);
      client.send({
        cmd: "connect",
        protocolId: "MQTT",
        protocolVersion: 4,
        clean: true,
        keepalive: 30,
        ...fields,
      } as never);
      expect((await client.expect("connack")).returnCode).toBe(returnCode);
      await client.expectClosed();
    });

    it("an enormous retained presence is refused, and a sound one of another boot does not come back", async () => {
      await device.publish("presence", sound("presence", boot + 5), { retain: true });
      await device.publish(
        "presence",
        encodeMessage("presence", { online: false, boot: 1, agentVersion: "0.1.0" }),
        { retain: true },
      );
      await device.publish("predictions", predictionBatch({ boot: boot + 5 }));
      taken += 10;
      await device.acked("predictions", boot + 5, 1);
      const detail = await stage().admin.ok<DeviceDetail>("GET", "/api/v1/devices/attacker");
      expect(detail.online).toBe(true);
    });

    it("a deployment that is another device's is not believed", async () => {
      const data = {
        type: "deployment",
        deployment: "dep_of_control",
        model: "shapes",
        version: 1,
        packageSha256: "0".repeat(64),
        state: "active",
      } as const;
      boot += 10;
      await device.publish("event", encodeMessage("event", { boot, seq: 1, prev: 0, time: BASE_TIME, data }));
      await device.acked("event", boot, 1);
      const { items } = await stage().admin.ok<{ items: unknown[] }>(
        "GET",
        "/api/v1/devices/control/deployments",
      );
      expect(items).toEqual([]);
    });

    it("stored bytes are the sender's, whatever they are", async () => {
      const html = Buffer.from("<script>alert(1)</script>");
      const sample = `smp_html${createHash("sha256").update(html).digest("hex").slice(0, 12)}`;
      boot += 10;
      await device.publish("sample", sampleMessage(sample, html, { boot }));
      await device.acked("sample", boot, 1);
      const answer = await stage().admin.send("GET", `/api/v1/samples/${sample}/payload`);
      expect(answer.headers["content-type"]).toBe("image/png");
      expect(answer.headers["x-content-type-options"]).toBe("nosniff");
      expect(String(answer.headers["content-security-policy"])).toContain("default-src 'self'");
    });

    it("every address of the API still answers about the attacker", async () => {
      for (const path of [
        "",
        "/series?from=0&bucketMs=86400000&to=1000000000",
        "/predictions",
        "/events",
        "/deployments",
      ]) {
        const answer = await stage().admin.send("GET", `/api/v1/devices/attacker${path}`);
        expect([path, answer.status]).toEqual([path, 200]);
      }
      for (const path of [
        "/api/v1/overview",
        "/api/v1/accuracy?device=attacker",
        "/api/v1/samples",
        "/api/v1/failures/statistics",
        "/metrics",
      ]) {
        const answer = await stage().admin.send("GET", path);
        expect([path, answer.status]).toEqual([path, 200]);
      }
    });
  });
}

/** PUBLISH of a payload of zeros. */
function publishBytes(topic: string, payloadBytes: number, first = 0x30): Buffer {
  const name = Buffer.from(topic);
  const id = first === 0x30 ? Buffer.alloc(0) : Buffer.from([0, 9]);
  const body = Buffer.concat([
    Buffer.from([name.length >> 8, name.length & 0xff]),
    name,
    id,
    Buffer.alloc(payloadBytes),
  ]);
  return Buffer.concat([Buffer.from([first]), remainingLength(body.length), body]);
}

function connectBytes(options: {
  clientId: string;
  username?: string;
  protocol?: string;
  level?: number;
  flags?: number;
}): Buffer {
  const text = (value: string): Buffer => {
    const bytes = Buffer.from(value);
    return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes]);
  };
  const { clientId, username, protocol = "MQTT", level = 4 } = options;
  const flags = options.flags ?? (username === undefined ? 0x02 : 0x82);
  const body = Buffer.concat([
    text(protocol),
    Buffer.from([level, flags, 0, 30]),
    text(clientId),
    ...(username === undefined ? [] : [text(username)]),
  ]);
  return Buffer.concat([Buffer.from([0x10]), remainingLength(body.length), body]);
}

function remainingLength(length: number): Buffer {
  const bytes: number[] = [];
  for (let rest = length; ; ) {
    const low = rest & 0x7f;
    rest >>= 7;
    bytes.push(rest > 0 ? low | 0x80 : low);
    if (rest === 0) return Buffer.from(bytes);
  }
}
