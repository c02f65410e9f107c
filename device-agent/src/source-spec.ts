import { isAbsolute, resolve } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { z } from "zod";
import {
  audioOptions,
  cameraOptions,
  folderOptions,
  mqttOptions,
  rowFileOptions,
  rtspOptions,
  simulatorOptions,
  tcpOptions,
  videoOptions,
} from "./source-options.js";

type DropChoice = "oldest" | "wait";
/** `realtime` plays like a live source; `none` gives everything as fast as it is taken. */
type PaceChoice = "realtime" | "none";

/** How the lines or messages of a sensor stream become rows and windows. */
export interface RowReading {
  readonly format: "csv" | "ndjson" | "json" | "float32";
  /** Names or positions from 0; all of them where there are none. */
  readonly columns: readonly string[] | undefined;
  readonly time: string | undefined;
  /** Samples a second; the model's own rate where there is none. */
  readonly hz: number | undefined;
  /** A step in time of more than so many samples starts a new window. */
  readonly gap: number;
  /** For windows: `hold` repeats the value before, `skip` leaves the row out, a number stands in. */
  readonly missing: "hold" | "skip" | number;
  readonly shape: "auto" | "row" | "window";
  readonly separator: string;
  readonly header: "auto" | "0" | "1";
  readonly length: number | undefined;
  readonly hop: number | undefined;
}

/** Who to be towards a camera or a broker: said in the URL, or in a file with `user:password`. */
export interface SourceLogin {
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly loginPath: string | undefined;
}

/** A source as the command line names it, read and checked: `kind:rest?option=value&…`. */
export type SourceSpec =
  | {
      readonly kind: "folder";
      readonly path: string;
      readonly fps: number;
      readonly loop: boolean;
      readonly drop: DropChoice;
    }
  | {
      readonly kind: "video";
      readonly path: string;
      readonly fps: number | undefined;
      readonly width: number | undefined;
      readonly height: number | undefined;
      readonly loop: boolean;
      readonly pace: PaceChoice;
      readonly drop: DropChoice;
    }
  | {
      readonly kind: "camera";
      readonly device: string;
      readonly fps: number;
      readonly width: number;
      readonly height: number;
      readonly format: "mjpeg" | "yuyv";
      readonly drop: DropChoice;
    }
  | ({
      readonly kind: "rtsp";
      /** Without user and password. */
      readonly url: string;
      readonly transport: "tcp" | "udp";
      readonly fps: number | undefined;
      readonly width: number | undefined;
      readonly height: number | undefined;
      readonly drop: DropChoice;
    } & SourceLogin)
  | {
      readonly kind: "audio";
      readonly input: "file" | "alsa" | "pulse";
      /** A path, or a name that ALSA or PulseAudio knows. */
      readonly name: string;
      readonly hz: number | undefined;
      readonly channels: number | undefined;
      readonly loop: boolean;
      readonly pace: PaceChoice;
      readonly drop: DropChoice;
      readonly length: number | undefined;
      readonly hop: number | undefined;
    }
  | {
      readonly kind: "csv" | "ndjson";
      /** Undefined for standard input. */
      readonly path: string | undefined;
      readonly follow: boolean;
      readonly loop: boolean;
      readonly pace: PaceChoice;
      readonly drop: DropChoice;
      readonly rows: RowReading;
    }
  | {
      readonly kind: "tcp" | "tcp-listen";
      /** To connect to, or to listen on. */
      readonly host: string;
      readonly port: number;
      readonly drop: DropChoice;
      readonly rows: RowReading;
    }
  | ({
      readonly kind: "mqtt";
      /** Without user and password. */
      readonly url: string;
      readonly topic: string;
      readonly qos: number;
      readonly drop: DropChoice;
      readonly rows: RowReading;
    } & SourceLogin)
  | { readonly kind: "http"; readonly port: number }
  | {
      readonly kind: "simulator";
      readonly scene: "parts" | "bearing";
      readonly seed: number;
      readonly fps: number;
      readonly condition: string;
      readonly newPartShare: number;
      /** Share of predictions whose truth is told back, and how long that takes. */
      readonly feedback: number;
      readonly feedbackDelayMs: number;
    };

/** One kind of source. */
export type SpecOf<Kind extends SourceSpec["kind"]> = Extract<SourceSpec, { readonly kind: Kind }>;

/** What a person may write, for help texts and errors. */
export const SOURCE_FORMS = [
  "folder:PATH?fps=5&loop=1&drop=wait|oldest",
  "video:PATH?fps=10&width=640&loop=0&pace=realtime|none",
  "camera:/dev/video0?fps=15&width=640&height=480&format=mjpeg|yuyv",
  "rtsp:URL?transport=tcp|udp&fps=10&width=640&login=FILE",
  "audio:alsa:DEVICE|pulse:DEVICE|FILE?hz=16000&channels=1",
  "csv:PATH|-?columns=x,y,z&time=t&hz=100&follow=1",
  "ndjson:PATH|-?columns=x,y,z&time=t&hz=100&follow=1",
  "tcp:HOST:PORT?format=ndjson|csv|float32",
  "tcp-listen:PORT?format=ndjson|csv|float32",
  "mqtt:URL/TOPIC?format=ndjson|csv|json|float32&qos=0&login=FILE",
  "http:PORT",
  "simulator:parts?seed=1&fps=15&condition=normal&feedback=0.25",
  "simulator:bearing?seed=1&fps=20&condition=none|outer-race:0.8",
] as const;

/** @throws FieldloopError `source_unknown` for another kind, `invalid_argument` for an option that is not acceptable */
export function parseSourceSpec(text: string): SourceSpec {
  const match = /^([a-z][a-z-]*):([^?]*)(?:\?(.*))?$/s.exec(text);
  if (!match) throw unknownSource(text);
  const kind = match[1]!;
  const rest = match[2]!;
  const query = match[3] ?? "";
  const options = Object.fromEntries(new URLSearchParams(query));
  switch (kind) {
    case "folder":
      return { kind, path: pathOf(text, rest), ...read(text, folderOptions, options) };
    case "video": {
      const { fps, width, height, drop, ...others } = read(text, videoOptions, options);
      const dropOr = drop ?? (others.pace === "realtime" ? "oldest" : "wait");
      return { kind, path: pathOf(text, rest), fps, width, height, drop: dropOr, ...others };
    }
    case "camera":
      return { kind, device: cameraOf(text, rest), ...read(text, cameraOptions, options) };
    case "rtsp":
      return rtspOf(text, rest, query);
    case "audio":
      return audioOf(text, rest, options);
    case "csv":
    case "ndjson": {
      const { follow, loop, pace, drop, ...rows } = read(text, rowFileOptions, options);
      const path = rest === "-" ? undefined : pathOf(text, rest);
      if (path === undefined && (follow || loop))
        throw refused(text, "standard input cannot be followed or looped");
      if (follow && loop) throw refused(text, "follow and loop exclude each other");
      return { kind, path, follow, loop, pace, drop, rows: readingOf(kind, rows) };
    }
    case "tcp":
    case "tcp-listen": {
      const { format, drop, ...rows } = read(text, tcpOptions, options);
      return { kind, ...addressOf(text, kind, rest), drop, rows: readingOf(format, rows) };
    }
    case "mqtt":
      return mqttOf(text, rest, options);
    case "http":
      read(text, z.strictObject({}), options);
      return { kind, port: portOf(text, rest, 0) };
    case "simulator": {
      if (rest !== "parts" && rest !== "bearing")
        throw refused(text, `no simulator "${rest}", there are parts and bearing`);
      const { fps, condition, ...others } = read(text, simulatorOptions, options);
      return {
        kind,
        scene: rest,
        fps: fps ?? (rest === "parts" ? 15 : 20),
        condition: condition ?? (rest === "parts" ? "normal" : "none"),
        ...others,
      };
    }
    default:
      throw unknownSource(text);
  }
}

const SOURCE_NAME_LENGTH_MAX = 200;

/** The source without its options and without any secret: what samples carry. */
export function sourceName(spec: SourceSpec): string {
  return nameOf(spec).slice(0, SOURCE_NAME_LENGTH_MAX);
}

function nameOf(spec: SourceSpec): string {
  switch (spec.kind) {
    case "folder":
    case "video":
      return `${spec.kind}:${spec.path}`;
    case "camera":
      return `camera:${spec.device}`;
    case "rtsp":
      // The query of a camera's URL may hold a key.
      return `rtsp:${spec.url.split("?")[0]!}`;
    case "audio":
      return spec.input === "file" ? `audio:${spec.name}` : `audio:${spec.input}:${spec.name}`;
    case "csv":
    case "ndjson":
      return `${spec.kind}:${spec.path ?? "-"}`;
    case "tcp":
      return `tcp:${spec.host}:${spec.port}`;
    case "tcp-listen":
      return `tcp-listen:${spec.port}`;
    case "mqtt":
      return `mqtt:${spec.url}/${spec.topic}`;
    case "http":
      return `http:${spec.port}`;
    case "simulator":
      return `simulator:${spec.scene}`;
  }
}

/** Takes user and password out of every URL in a text that people will read. */
export function withoutLogins(text: string): string {
  return text.replace(/\/\/[^\s"']*@/g, "//…@");
}

function readingOf(
  format: RowReading["format"],
  rows: Omit<z.output<typeof tcpOptions>, "format" | "drop">,
): RowReading {
  const { columns, time, hz, gap, missing, shape, separator, header, length, hop } = rows;
  return { format, columns, time, hz, gap, missing, shape, separator, header, length, hop };
}

function cameraOf(text: string, rest: string): string {
  const device = /^\d{1,3}$/.test(rest) ? `/dev/video${rest}` : rest;
  if (!/^\/dev\/(?:[A-Za-z0-9_:.-]+\/)*[A-Za-z0-9_:.-]+$/.test(device) || device.includes("..")) {
    throw refused(text, `"${rest}" is no camera, wanted /dev/videoN, or its number`);
  }
  return device;
}

/** Options that are not ours stay in the camera's URL: `rtsp:rtsp://cam/live?channel=1&transport=tcp`. */
function rtspOf(text: string, rest: string, query: string): SpecOf<"rtsp"> {
  const ours: Record<string, string> = {};
  const theirs: string[] = [];
  for (const pair of query === "" ? [] : query.split("&")) {
    const name = pair.split("=")[0]!;
    if (Object.hasOwn(rtspOptions.shape, name)) ours[name] = new URLSearchParams(pair).get(name) ?? "";
    else theirs.push(pair);
  }
  const { login, fps, width, height, ...others } = read(text, rtspOptions, ours);
  const { url, username, password } = urlOf(text, rest, "rtsp", ["rtsp:", "rtsps:"]);
  const full = theirs.length > 0 ? `${url.href}?${theirs.join("&")}` : url.href;
  return {
    ...{ kind: "rtsp", url: full, fps, width, height },
    ...others,
    ...loginOf(text, username, password, login),
  };
}

function audioOf(text: string, rest: string, options: Record<string, string>): SpecOf<"audio"> {
  const { hz, channels, length, hop, drop, ...others } = read(text, audioOptions, options);
  const device = /^(alsa|pulse):([\w:.,=+-]{1,128})$/.exec(rest);
  const isDevice = device !== null || /^(?:default|(?:plug)?hw:[\w:.,=-]{1,64})$/.test(rest);
  if (isDevice && (others.loop || others.pace === "none")) {
    throw refused(text, "a sound device has its own pace and no end");
  }
  return {
    kind: "audio",
    input: device ? (device[1] as "alsa" | "pulse") : isDevice ? "alsa" : "file",
    name: device ? device[2]! : isDevice ? rest : pathOf(text, rest),
    ...{ hz, channels, length, hop },
    drop: drop ?? (others.pace === "realtime" ? "oldest" : "wait"),
    ...others,
  };
}

function mqttOf(text: string, rest: string, options: Record<string, string>): SpecOf<"mqtt"> {
  const { format, qos, drop, login, ...rows } = read(text, mqttOptions, options);
  const address = rest.startsWith("//") ? `mqtt:${rest}` : rest;
  const match = /^(mqtts?|wss?):\/\/([^/]+)\/(.+)$/s.exec(address);
  if (!match) throw refused(text, "wanted mqtt://HOST:PORT/TOPIC");
  const { url, username, password } = urlOf(text, `${match[1]}://${match[2]}`, "mqtt", [
    "mqtt:",
    "mqtts:",
    "ws:",
    "wss:",
  ]);
  const topic = decode(text, match[3]!);
  // MQTT 3.1.1, 4.7.1: `#` only as the last level, both wildcards alone in theirs.
  const levels = topic.split("/");
  const bad = levels.some(
    (level, at) =>
      (level.includes("#") && (level !== "#" || at < levels.length - 1)) ||
      (level.includes("+") && level !== "+"),
  );
  if (bad || topic.includes("\0") || Buffer.byteLength(topic) > 65_535)
    throw refused(text, `"${topic.slice(0, 80)}" is no topic filter`);
  return {
    ...{ kind: "mqtt", url: url.href.replace(/\/$/, ""), topic, qos, drop },
    ...{ rows: readingOf(format, rows), ...loginOf(text, username, password, login) },
  };
}

function urlOf(
  text: string,
  rest: string,
  scheme: string,
  protocols: readonly string[],
): { url: URL; username: string | undefined; password: string | undefined } {
  // `rtsp://host/…` itself is taken too.
  const address = rest.startsWith("//") ? `${scheme}:${rest}` : rest;
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    throw refused(text, "the URL does not parse");
  }
  if (!protocols.includes(url.protocol) || url.hostname === "") {
    throw refused(text, `wanted a URL with a host and ${protocols.map((name) => `${name}//`).join(" or ")}`);
  }
  if (/[\s\0'"\\]/.test(address)) throw refused(text, "white space or quotes in the URL");
  const username = url.username === "" ? undefined : decode(text, url.username);
  const password = url.password === "" ? undefined : decode(text, url.password);
  url.username = "";
  url.password = "";
  return { url, username, password };
}

function loginOf(
  text: string,
  username: string | undefined,
  password: string | undefined,
  login: string | undefined,
): SourceLogin {
  if (login !== undefined && username !== undefined) {
    throw refused(text, "user and password stand either in the URL or in the file of login");
  }
  return { username, password, loginPath: login === undefined ? undefined : pathOf(text, login) };
}

function addressOf(text: string, kind: "tcp" | "tcp-listen", rest: string): { host: string; port: number } {
  const match = /^(?:(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):)?(\d{1,5})$/.exec(rest);
  const host = match?.[1]?.replace(/^\[|\]$/g, "");
  if (!match || (kind === "tcp" && host === undefined)) {
    throw refused(text, kind === "tcp" ? "wanted HOST:PORT" : "wanted PORT, or ADDRESS:PORT");
  }
  // Whoever may send to a device is the person's decision: nobody from outside unless the address says so.
  return { host: host ?? "127.0.0.1", port: portOf(text, match[2]!, kind === "tcp" ? 1 : 0) };
}

function portOf(text: string, digits: string, least: number): number {
  const port = Number(digits);
  if (!/^\d{1,5}$/.test(digits) || port > 65_535 || port < least) {
    throw refused(text, `"${digits.slice(0, 20)}" is not a port`);
  }
  return port;
}

function read<Schema extends z.ZodType>(
  text: string,
  schema: Schema,
  options: Record<string, string>,
): z.output<Schema> {
  const parsed = schema.safeParse(options);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw refused(text, `${issue.path.join(".") || "options"}: ${issue.message}`);
  }
  return parsed.data;
}

function pathOf(text: string, rest: string): string {
  const path = rest.startsWith("file://") ? decode(text, rest.slice("file://".length)) : rest;
  if (path === "" || path.includes("\0")) throw refused(text, "a path is wanted");
  return isAbsolute(path) ? path : resolve(path);
}

function decode(text: string, part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw refused(text, "a % that is not followed by two hexadecimal digits");
  }
}

function refused(text: string, what: string): FieldloopError {
  return new FieldloopError("invalid_argument", `Read source "${shown(text)}": ${what}`);
}

function unknownSource(text: string): FieldloopError {
  return new FieldloopError(
    "source_unknown",
    `Read source "${shown(text)}": wanted ${SOURCE_FORMS.join(", ")}`,
  );
}

/** The query of a camera's URL may hold a key: of that no more is said than the option that is wrong. */
function shown(text: string): string {
  const open = text.startsWith("rtsp:") ? text.replace(/\?.*/s, "?…") : text;
  return withoutLogins(open).slice(0, SOURCE_NAME_LENGTH_MAX);
}
