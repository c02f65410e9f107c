import { z } from "zod";
import { AGENT_LIMITS } from "./limits.js";

/** The options of each kind of source, as they stand after the `?`: texts in, checked values with their defaults out. */

const booleanOption = z
  .enum(["0", "1", "true", "false"])
  .transform((text) => text === "1" || text === "true");
const fpsOption = z.coerce.number().gt(0).max(1000);
const shareOption = z.coerce.number().min(0).max(1);
const sideOption = z.coerce.number().int().min(16).max(8192);
const samplesOption = z.coerce
  .number()
  .int()
  .min(1)
  .max(1 << 20);
const dropOption = z.enum(["oldest", "wait"]);
const sampleRateOption = z.coerce.number().gt(0).max(10_000_000);
/** A file that holds `user:password`: neither comes into a command line, a log or a unit file. */
const loginOption = z.string().min(1).max(4_096).optional();

export const folderOptions = z.strictObject({
  fps: fpsOption.default(5),
  loop: booleanOption.default(true),
  drop: dropOption.default("wait"),
});

export const videoOptions = z.strictObject({
  fps: fpsOption.optional(),
  width: sideOption.optional(),
  height: sideOption.optional(),
  loop: booleanOption.default(false),
  pace: z.enum(["realtime", "none"]).default("realtime"),
  drop: dropOption.optional(),
});

export const cameraOptions = z.strictObject({
  fps: fpsOption.default(15),
  width: sideOption.default(640),
  height: sideOption.default(480),
  format: z.enum(["mjpeg", "yuyv"]).default("mjpeg"),
  drop: dropOption.default("oldest"),
});

export const rtspOptions = z.strictObject({
  transport: z.enum(["tcp", "udp"]).default("tcp"),
  fps: fpsOption.optional(),
  width: sideOption.optional(),
  height: sideOption.optional(),
  drop: dropOption.default("oldest"),
  login: loginOption,
});

export const simulatorOptions = z.strictObject({
  seed: z.coerce.number().int().min(0).default(1),
  fps: fpsOption.optional(),
  condition: z.string().max(64).optional(),
  newPartShare: shareOption.default(0),
  feedback: shareOption.default(0.25),
  feedbackDelayMs: z.coerce.number().min(0).max(3_600_000).default(1000),
});

/** What a window model would say by itself; these override it. */
const windowOptions = {
  length: samplesOption.optional(),
  hop: samplesOption.optional(),
};

export const audioOptions = z.strictObject({
  hz: sampleRateOption.optional(),
  channels: z.coerce.number().int().min(1).max(64).optional(),
  loop: booleanOption.default(false),
  pace: z.enum(["realtime", "none"]).default("realtime"),
  drop: dropOption.optional(),
  ...windowOptions,
});

const columnsOption = z
  .string()
  .transform((text) => text.split(",").map((name) => name.trim()))
  .pipe(z.array(z.string().min(1).max(128)).min(1).max(AGENT_LIMITS.rowColumnsMax));

const rowOptions = {
  /** Names, or positions from 0. */
  columns: columnsOption.optional(),
  time: z.string().min(1).max(128).optional(),
  hz: sampleRateOption.optional(),
  gap: z.coerce.number().min(1).max(1e9).default(3),
  missing: z
    .union([z.enum(["hold", "skip"]), z.coerce.number().refine((value) => Number.isFinite(value))])
    .default("hold"),
  shape: z.enum(["auto", "row", "window"]).default("auto"),
  separator: z
    .enum(["comma", "semicolon", "tab", "space", "pipe"])
    .default("comma")
    .transform((name) => ({ comma: ",", semicolon: ";", tab: "\t", space: " ", pipe: "|" })[name]),
  header: z.enum(["auto", "0", "1"]).default("auto"),
  ...windowOptions,
};

export const rowFileOptions = z.strictObject({
  follow: booleanOption.default(false),
  loop: booleanOption.default(false),
  pace: z.enum(["realtime", "none"]).default("none"),
  drop: dropOption.default("wait"),
  ...rowOptions,
});

export const tcpOptions = z.strictObject({
  format: z.enum(["csv", "ndjson", "float32"]).default("ndjson"),
  drop: dropOption.default("oldest"),
  ...rowOptions,
});

export const mqttOptions = z.strictObject({
  format: z.enum(["csv", "ndjson", "json", "float32"]).default("ndjson"),
  qos: z.enum(["0", "1"]).default("0").transform(Number),
  drop: dropOption.default("oldest"),
  login: loginOption,
  ...rowOptions,
});

/** Options that any source may carry: they are the lane's, not the source's. */
export const laneOptions = z.strictObject({
  model: z.string().optional(),
  priority: z.coerce.number().int().min(0).max(100).default(50),
  rate: fpsOption.optional(),
  batch: z.coerce.number().int().min(1).max(AGENT_LIMITS.laneBatchMax).default(AGENT_LIMITS.frameQueueMax),
});
