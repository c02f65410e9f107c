import { access, constants, readdir } from "node:fs/promises";
import { FieldloopError } from "@fieldloop/protocol";
import { codeOf } from "../../control/files.js";
import type { SpecOf } from "../../source-spec.js";
import { Deliverer } from "./deliver.js";
import { type FfmpegPlan, runFfmpeg } from "./ffmpeg.js";
import { afterFile, type Attempt, type AttemptEnd, KeepTrying } from "./keep-trying.js";
import { type Login, readLogin, withLogin } from "./login.js";
import { MultipartJpegReader } from "./multipart-jpeg.js";
import { PpmReader } from "./ppm.js";
import type { DropPolicy, Source, SourceContext, SourceFrame } from "./source.js";

export type ImageSpec = SpecOf<"video"> | SpecOf<"camera"> | SpecOf<"rtsp">;

/** A camera, a network camera or a video file, read by an `ffmpeg` child process. JPEG that a camera made is not decoded here. */
export class FfmpegImageSource implements Source {
  readonly dropPolicy: DropPolicy;
  readonly #spec: ImageSpec;
  readonly #context: SourceContext;
  readonly #deliverer: Deliverer;
  readonly #trying: KeepTrying;
  #frames = 0;
  #everyFrame = EVERY_FRAME;

  constructor(spec: ImageSpec, context: SourceContext) {
    this.#spec = spec;
    this.#context = context;
    this.dropPolicy = spec.drop;
    this.#deliverer = new Deliverer(context, spec.drop);
    this.#trying = new KeepTrying(context, (attempt) => this.#play(attempt));
  }

  open(): Promise<void> {
    this.#trying.start();
    return Promise.resolve();
  }

  close(): Promise<void> {
    return this.#trying.stop();
  }

  counts(): Readonly<Record<string, number>> {
    return { frames: this.#frames, restarts: this.#trying.restarts };
  }

  async #play(attempt: Attempt): Promise<AttemptEnd> {
    const spec = this.#spec;
    if (spec.kind === "camera") await checkCamera(spec.device);
    const login = spec.kind === "rtsp" ? await readLogin(spec) : undefined;
    const before = this.#frames;
    const read = isPassedThrough(spec) ? encodedFrames() : pixelFrames();
    try {
      await runFfmpeg(imagePlan(spec, login, this.#everyFrame), attempt.signal, async (chunk) => {
        for (const frame of read(chunk)) {
          attempt.healthy();
          this.#frames++;
          await this.#deliverer.deliver({ frame, time: this.#context.clock.now() }, attempt.signal);
        }
      });
    } catch (error) {
      if (this.#everyFrame === EVERY_FRAME_BEFORE || !String(error).includes("fps_mode")) throw error;
      this.#everyFrame = EVERY_FRAME_BEFORE;
      return "again";
    }
    if (spec.kind === "video" && !attempt.signal.aborted) {
      const end = afterFile(spec.loop, this.#frames - before, `Play video "${spec.path}"`);
      attempt.healthy();
      return end;
    }
    attempt.healthy();
    return "again";
  }
}

function isPassedThrough(spec: ImageSpec): boolean {
  return spec.kind === "camera" && spec.format === "mjpeg";
}

type ReadFrames = (chunk: Buffer) => SourceFrame["frame"][];

function encodedFrames(): ReadFrames {
  const reader = new MultipartJpegReader();
  return (chunk) => reader.push(chunk).map((bytes) => ({ kind: "encoded", bytes }));
}

function pixelFrames(): ReadFrames {
  const reader = new PpmReader();
  return (chunk) => reader.push(chunk).map((image) => ({ kind: "pixels", channels: 3, ...image }));
}

/** Each frame once: without it ffmpeg repeats frames to hold a constant rate when a camera slows down or its link stalls. */
const EVERY_FRAME = ["-fps_mode", "passthrough"];
/** The same before ffmpeg 5.1. */
const EVERY_FRAME_BEFORE = ["-vsync", "passthrough"];

/** The command line of ffmpeg for a source of images. */
export function imagePlan(
  spec: ImageSpec,
  login?: Login,
  everyFrame: readonly string[] = EVERY_FRAME,
): FfmpegPlan {
  switch (spec.kind) {
    case "video":
      return {
        action: `Play video "${spec.path}"`,
        live: false,
        arguments: [
          ...["-nostdin", "-threads", "1"],
          // A playlist inside the file cannot make it open a URL.
          ...["-protocol_whitelist", "file,pipe"],
          ...(spec.pace === "realtime" ? ["-re"] : []),
          ...["-i", `file:${spec.path}`],
          ...pixelOutput(spec, everyFrame),
        ],
      };
    case "camera":
      return {
        action: `Open camera "${spec.device}"`,
        live: true,
        arguments: [
          ...["-nostdin", "-threads", "1"],
          ...["-f", "v4l2", "-input_format", spec.format === "mjpeg" ? "mjpeg" : "yuyv422"],
          ...["-framerate", String(spec.fps), "-video_size", `${spec.width}x${spec.height}`],
          ...["-i", spec.device],
          ...(spec.format === "mjpeg" ? JPEG_OUTPUT : pixelOutput({}, everyFrame)),
        ],
      };
    case "rtsp":
      return rtspPlan(spec, login, everyFrame);
  }
}

/** Frames as the camera packed them. Many leave the Huffman tables out, which every JPEG decoder wants: the filter puts them in. */
export const JPEG_OUTPUT: readonly string[] = [
  ...["-an", "-sn", "-c:v", "copy", "-bsf:v", "mjpeg2jpeg"],
  ...["-flush_packets", "1", "-f", "mpjpeg", "pipe:1"],
];

/** What a URL may hold that is secret does not stand in the command line, which everybody on the machine can read: a script on standard input has it. */
function rtspPlan(spec: SpecOf<"rtsp">, login: Login | undefined, everyFrame: readonly string[]): FfmpegPlan {
  const action = `Open stream "${spec.url.split("?")[0]!}"`;
  const quick = ["-fflags", "nobuffer", "-flags", "low_delay", "-threads", "1"];
  const output = pixelOutput(spec, everyFrame);
  // A camera's own options may hold a key.
  const keys = spec.url.split("?").slice(1);
  if (login === undefined && keys.length === 0) {
    return {
      ...{ action, live: true },
      arguments: ["-nostdin", ...quick, "-rtsp_transport", spec.transport, "-i", spec.url, ...output],
    };
  }
  const script = [
    "ffconcat version 1.0",
    `file '${login === undefined ? spec.url : withLogin(spec.url, login)}'`,
    `option rtsp_transport ${spec.transport}`,
  ];
  return {
    ...{ action, live: true, input: `${script.join("\n")}\n` },
    secrets: [...keys, ...(login === undefined ? [] : [login.password, encodeURIComponent(login.password)])],
    arguments: [
      ...quick,
      ...["-protocol_whitelist", "pipe,fd,rtsp,rtsps,rtp,rtcp,srtp,tcp,udp,tls,crypto"],
      ...["-f", "concat", "-safe", "0", "-i", "pipe:0"],
      ...output,
    ],
  };
}

function pixelOutput(
  wanted: {
    readonly fps?: number | undefined;
    readonly width?: number | undefined;
    readonly height?: number | undefined;
  },
  everyFrame: readonly string[],
): string[] {
  const { fps, width, height } = wanted;
  const filters = [
    ...(fps === undefined ? [] : [`fps=${fps}`]),
    // -2: the other side by the aspect ratio, even.
    ...(width === undefined && height === undefined
      ? []
      : [`scale=${width ?? -2}:${height ?? -2}:flags=area`]),
  ];
  return [
    ...["-an", "-sn", ...everyFrame],
    ...(filters.length === 0 ? [] : ["-vf", filters.join(",")]),
    ...["-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "pipe:1"],
  ];
}

/** Says what is wrong with a device before ffmpeg does so in its own words. @throws FieldloopError `source_failed` */
async function checkCamera(device: string): Promise<void> {
  try {
    await access(device, constants.R_OK | constants.W_OK);
  } catch (cause) {
    const code = codeOf(cause);
    let what = code ?? String(cause);
    if (code === "ENOENT") {
      const names = (await readdir("/dev").catch(() => [])).filter((name) => /^video\d+$/.test(name));
      what = `no such device, there ${names.length > 0 ? `are ${names.map((name) => `/dev/${name}`).join(", ")}` : "is no camera here"}`;
    } else if (code === "EACCES" || code === "EPERM") {
      what = "this user may not use it: the group video may";
    }
    throw new FieldloopError("source_failed", `Open camera "${device}": ${what}`, { cause });
  }
}
