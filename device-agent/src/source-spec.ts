import { z } from "zod";
import {
  cameraOptions,
  folderOptions,
  rowFileOptions,
  simulatorOptions,
  tcpOptions,
  videoOptions,
} from "./source-options.js";
import {
  addressOf,
  audioOf,
  cameraOf,
  mqttOf,
  pathOf,
  portOf,
  read,
  readingOf,
  refused,
  rtspOf,
  SOURCE_NAME_LENGTH_MAX,
  unknownSource,
} from "./source-parts.js";

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
