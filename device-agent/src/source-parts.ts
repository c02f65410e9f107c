import { isAbsolute, resolve } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import type { z } from "zod";
import { audioOptions, mqttOptions, rtspOptions, type tcpOptions } from "./source-options.js";
import type { RowReading, SourceLogin, SpecOf } from "./source-spec.js";

/** The parts of a source's text that take more than a table of options: URLs, addresses, paths, and how errors quote them. */

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

export const SOURCE_NAME_LENGTH_MAX = 200;

/** Takes user and password out of every URL in a text that people will read. */
export function withoutLogins(text: string): string {
  return text.replace(/\/\/[^\s"']*@/g, "//…@");
}

export function readingOf(
  format: RowReading["format"],
  rows: Omit<z.output<typeof tcpOptions>, "format" | "drop">,
): RowReading {
  const { columns, time, hz, gap, missing, shape, separator, header, length, hop } = rows;
  return { format, columns, time, hz, gap, missing, shape, separator, header, length, hop };
}

export function cameraOf(text: string, rest: string): string {
  const device = /^\d{1,3}$/.test(rest) ? `/dev/video${rest}` : rest;
  if (!/^\/dev\/(?:[A-Za-z0-9_:.-]+\/)*[A-Za-z0-9_:.-]+$/.test(device) || device.includes("..")) {
    throw refused(text, `"${rest}" is no camera, wanted /dev/videoN, or its number`);
  }
  return device;
}

/** Options that are not ours stay in the camera's URL: `rtsp:rtsp://cam/live?channel=1&transport=tcp`. */
export function rtspOf(text: string, rest: string, query: string): SpecOf<"rtsp"> {
  const ours: Record<string, string> = {};
  const theirs: string[] = [];
  for (const pair of query === "" ? [] : query.split("&")) {
    const name = pair.split("=")[0]!;
    if (Object.hasOwn(rtspOptions.shape, name)) ours[name] = new URLSearchParams(pair).get(name) ?? "";
    else theirs.push(pair);
  }
  const { login, fps, width, height, ...others } = read(text, rtspOptions, ours);
  const { url, username, password } = urlOf(text, rest, "rtsp", ["rtsp:", "rtsps:"]);
  checkWritable(text, theirs.join("&"));
  const full = theirs.length > 0 ? `${url.href}?${theirs.join("&")}` : url.href;
  return {
    ...{ kind: "rtsp", url: full, fps, width, height },
    ...others,
    ...loginOf(text, username, password, login),
  };
}

export function audioOf(text: string, rest: string, options: Record<string, string>): SpecOf<"audio"> {
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

export function mqttOf(text: string, rest: string, options: Record<string, string>): SpecOf<"mqtt"> {
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
  checkWritable(text, address);
  const username = url.username === "" ? undefined : decode(text, url.username);
  const password = url.password === "" ? undefined : decode(text, url.password);
  url.username = "";
  url.password = "";
  return { url, username, password };
}

/** A URL may stand in a script of ffmpeg's, where a quote or a line end would be a command. */
function checkWritable(text: string, part: string): void {
  if (/[\s\0'"\\]/.test(part)) throw refused(text, "white space or quotes in the URL");
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

export function addressOf(
  text: string,
  kind: "tcp" | "tcp-listen",
  rest: string,
): { host: string; port: number } {
  const match = /^(?:(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):)?(\d{1,5})$/.exec(rest);
  const host = match?.[1]?.replace(/^\[|\]$/g, "");
  if (!match || (kind === "tcp" && host === undefined)) {
    throw refused(text, kind === "tcp" ? "wanted HOST:PORT" : "wanted PORT, or ADDRESS:PORT");
  }
  // Whoever may send to a device is the person's decision: nobody from outside unless the address says so.
  return { host: host ?? "127.0.0.1", port: portOf(text, match[2]!, kind === "tcp" ? 1 : 0) };
}

export function portOf(text: string, digits: string, least: number): number {
  const port = Number(digits);
  if (!/^\d{1,5}$/.test(digits) || port > 65_535 || port < least) {
    throw refused(text, `"${digits.slice(0, 20)}" is not a port`);
  }
  return port;
}

export function read<Schema extends z.ZodType>(
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

export function pathOf(text: string, rest: string): string {
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

export function refused(text: string, what: string): FieldloopError {
  return new FieldloopError("invalid_argument", `Read source "${shown(text)}": ${what}`);
}

/** Names the kinds; `fieldloop agent --help` has them with their options. */
export function unknownSource(text: string): FieldloopError {
  const kinds = new Set(SOURCE_FORMS.map((form) => form.slice(0, form.indexOf(":") + 1)));
  return new FieldloopError(
    "source_unknown",
    `Read source "${shown(text)}": wanted ${[...kinds].join(" ")} and what the kind needs (fieldloop agent --help)`,
  );
}

/** The query of a camera's URL may hold a key: of that no more is said than the option that is wrong. */
function shown(text: string): string {
  const open = text.startsWith("rtsp:") ? text.replace(/\?.*/s, "?…") : text;
  return withoutLogins(open).slice(0, SOURCE_NAME_LENGTH_MAX);
}
