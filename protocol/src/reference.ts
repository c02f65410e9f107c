import { z } from "zod";
import { ERROR_CODES } from "./errors.js";
import { LIMITS } from "./limits.js";
import { manifestSchema } from "./manifest/manifest.js";
import { MESSAGES } from "./messages/codec.js";
import { STREAMS } from "./messages/delivery.js";
import { CONFIDENCE_SCALE, LATENCY_SCALE, SIGNALS, type ColumnScale } from "./signals.js";
import { DEPLOYMENT, ROLLOUT, TRAINING, WAVE, type StateMachine } from "./states.js";
import { PROTOCOL_VERSION } from "./topics.js";

/** `docs/protocol.md`, made from the schemas themselves so that it cannot disagree with them. */
export function protocolReference(): string {
  return [
    "# Protocol reference",
    "",
    "Generated from `protocol/src` by `npm run docs`; a test holds it equal. For the reasons see `architecture.md`.",
    "",
    "## Topics",
    "",
    `\`fieldloop/${PROTOCOL_VERSION}/{device}/{up|down}/{kind}\` over MQTT 3.1.1. A device publishes only under its own \`up/\` and subscribes only under its own \`down/\`.`,
    "",
    ...topicTable(),
    "",
    "## Delivery",
    "",
    `Streams: ${STREAMS.map((name) => `\`${name}\``).join(", ")}. Every message of one carries \`boot\`, \`seq\` and \`prev\`. \`down/ack\` is CBOR \`[[stream, boot, seq], …]\` with the stream's index in that list; the device deletes from its spool on nothing else. A PUBACK only controls the flow.`,
    "",
    "| message, against the last durable (boot, seq) of its stream | verdict |",
    "| --- | --- |",
    "| newer boot, `prev` 0 | stored |",
    "| newer boot, `prev` above 0 | gap: not stored, not acknowledged, the device sends again |",
    "| same boot, `seq` not above | duplicate: acknowledged again |",
    "| same boot, `prev` at most the durable `seq` | stored |",
    "| same boot, `prev` above it | gap |",
    "| older boot | refused (`boot_superseded`), acknowledged, counted |",
    "",
    "## Predictions",
    "",
    "CBOR array `[boot, seq, prev, model, version, package prefix (8 bytes), firstN, first time, count, flags, signal ids, payload]`; further elements are ignored. The payload is raw DEFLATE (RFC 1951) of 8- and 16-bit columns: time deltas in ms, class, confidence, latency, each signal, and boxes for detections.",
    "",
    "| column | code 0..255 means |",
    "| --- | --- |",
    `| confidence | ${describeScale(CONFIDENCE_SCALE)} |`,
    `| latency in ms | ${describeScale(LATENCY_SCALE)} |`,
    ...Object.entries(SIGNALS).map(
      ([name, signal]) =>
        `| signal ${signal.id} \`${name}\`: ${signal.title} | ${describeScale(signal.scale)} |`,
    ),
    "",
    "## Messages",
    "",
    ...Object.entries(MESSAGES).flatMap(([name, { schema, bytesMax }]) =>
      messageSection(name, schema, bytesMax),
    ),
    "## Manifest",
    "",
    "`manifest.json`; its SHA-256 is the identity of the package.",
    "",
    ...fieldTable(manifestSchema),
    "",
    "## State machines",
    "",
    ...machineTable("Deployment", DEPLOYMENT),
    ...machineTable("Rollout", ROLLOUT),
    ...machineTable("Wave", WAVE),
    ...machineTable("Training run", TRAINING),
    "## Limits",
    "",
    "| limit | value |",
    "| --- | --- |",
    ...Object.entries(LIMITS).map(([name, value]) => `| \`${name}\` | ${value.toLocaleString("en")} |`),
    "",
    "## Error codes",
    "",
    "| code | HTTP | meaning |",
    "| --- | --- | --- |",
    ...Object.entries(ERROR_CODES).map(
      ([code, { status, title }]) => `| \`${code}\` | ${status} | ${title} |`,
    ),
    "",
  ].join("\n");
}

function topicTable(): string[] {
  const rows = [
    ["up/presence", "1, retained, last will", "online or offline, boot, agent version"],
    [
      "up/state",
      "1, retained",
      "reported state: facts, running package with its hash, health, applied revision",
    ],
    ["up/predictions", "1", "a columnar batch of predictions of one version"],
    ["up/profile", "1", "mergeable statistics of a window"],
    ["up/sample", "1", "a sampled input, in parts"],
    ["up/event", "1", "deployment progress, warnings, crashes, feedback"],
    ["down/desired", "1, retained, signed", "desired state with a growing revision"],
    ["down/command", "1, signed", "one-shot command, answered by an event"],
    ["down/ack", "0", "what is durable"],
  ];
  return [
    "| topic | QoS | holds |",
    "| --- | --- | --- |",
    ...rows.map((row) => `| \`${row[0]}\` | ${row[1]} | ${row[2]} |`),
  ];
}

function describeScale(scale: ColumnScale): string {
  switch (scale.kind) {
    case "linear":
      return `linear, ${scale.min} to ${scale.max}`;
    case "log":
      return `logarithmic, ${scale.min} to ${scale.max}`;
    case "logit":
      return `logit, ±${scale.bound}`;
  }
}

function messageSection(name: string, schema: z.ZodType, bytesMax: number): string[] {
  return [
    `### ${name}`,
    "",
    `At most ${bytesMax.toLocaleString("en")} bytes.`,
    "",
    ...fieldTable(schema),
    "",
  ];
}

interface JsonSchema {
  type?: string;
  const?: unknown;
  enum?: unknown[];
  properties?: Record<string, JsonSchema>;
  required?: string[];
  items?: JsonSchema;
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  additionalProperties?: JsonSchema | boolean;
  minimum?: number;
  maximum?: number;
  maxLength?: number;
  maxItems?: number;
  pattern?: string;
}

/** Fields by path; binary values show as `bytes`. */
function fieldTable(schema: z.ZodType): string[] {
  const json = z.toJSONSchema(schema, { unrepresentable: "any", io: "output" }) as JsonSchema;
  const rows: string[] = [];
  visit(json, "", true, rows);
  return ["| field | type |", "| --- | --- |", ...rows];
}

function visit(schema: JsonSchema, path: string, required: boolean, rows: string[]): void {
  const options = schema.oneOf ?? schema.anyOf;
  if (schema.properties) {
    for (const [key, field] of Object.entries(schema.properties)) {
      visit(field, path === "" ? key : `${path}.${key}`, schema.required?.includes(key) ?? false, rows);
    }
  } else if (options?.some((option) => option.properties)) {
    for (const option of options) {
      const tag = Object.entries(option.properties ?? {}).find(([, field]) => field.const !== undefined);
      if (option.properties) visit(option, tag ? `${path}(${String(tag[1].const)})` : path, required, rows);
      else rows.push(`| \`${path}\` | ${typeText(option)} |`);
    }
  } else if (schema.type === "array" && schema.items && (schema.items.properties ?? schema.items.oneOf)) {
    visit(schema.items, `${path}[]`, required, rows);
  } else {
    rows.push(`| \`${path}\` | ${typeText(schema)}${required ? "" : ", optional"} |`);
  }
}

function typeText(schema: JsonSchema): string {
  if (schema.const !== undefined) return `\`${JSON.stringify(schema.const)}\``;
  if (schema.enum)
    return schema.enum.length > 20
      ? `one of ${schema.enum.length} values`
      : schema.enum.map((value) => `\`${String(value)}\``).join(" ");
  if (schema.anyOf) return schema.anyOf.map(typeText).join(" or ");
  if (schema.type === "array")
    return `list of ${schema.items ? typeText(schema.items) : "values"}${schema.maxItems ? `, at most ${schema.maxItems}` : ""}`;
  if (schema.type === "object") return "map";
  if (schema.type === undefined) return "bytes";
  const bounds = [
    schema.minimum === undefined || schema.minimum <= Number.MIN_SAFE_INTEGER ? "" : `from ${schema.minimum}`,
    schema.maximum === undefined || schema.maximum >= Number.MAX_SAFE_INTEGER ? "" : `to ${schema.maximum}`,
    schema.maxLength === undefined ? "" : `at most ${schema.maxLength} characters`,
  ].filter(Boolean);
  return [schema.type, ...bounds].join(", ");
}

function machineTable<State extends string>(title: string, machine: StateMachine<State>): string[] {
  const rows = (Object.entries(machine.next) as [State, readonly State[]][]).map(
    ([state, next]) => `| \`${state}\` | ${next.map((name) => `\`${name}\``).join(" ") || "–"} |`,
  );
  return [
    `### ${title}`,
    "",
    `Starts in \`${machine.initial}\`.`,
    "",
    "| state | may become |",
    "| --- | --- |",
    ...rows,
    "",
  ];
}
