import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ErrorCode } from "@fieldloop/protocol";
import { encodeJpeg } from "@fieldloop/runtime/node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCli, type CliResult } from "../kit/run-cli.js";
import { encodePng, pngHead, tinyPng, writeTinyPackage, type PngPlan } from "../kit/tiny-package.js";
import type { Stage } from "./stage.js";

/** At a time; each is a process of its own. */
const PROCESSES = 3;
const RSS_BYTES_MAX = 400 * 1024 * 1024;

interface Place {
  readonly dir: string;
  readonly server: string;
  readonly serverData: string;
  readonly httpPort: string;
  readonly token: string;
}

interface CliRow {
  readonly args: (place: Place) => readonly string[];
  readonly exit: 1 | 2;
  /** What standard error must say: the code, or words of the message. */
  readonly says: readonly (string | RegExp)[];
  readonly env?: Readonly<Record<string, string>>;
}

const usage = (command: string, ...says: (string | RegExp)[]): CliRow => ({
  args: () => command.split(" "),
  exit: 2,
  says,
});
const fails = (
  exit: 1 | 2,
  code: ErrorCode,
  args: (place: Place) => readonly string[],
  ...says: (string | RegExp)[]
): CliRow => ({
  args,
  exit,
  says: [code, ...says],
});

const CALLS: Readonly<Record<string, CliRow>> = {
  "a command that is none": usage("frobnicate", /unknown command/, "frobnicate", "--help"),
  "an option that is none": usage("server --frobnicate", /unknown option/, "--frobnicate", "--help"),
  "a global option that is none": usage("--frobnicate", /unknown option/, "--frobnicate"),
  "no command": usage("model", "Usage:"),
  "an argument too many": usage("device list extra", /too many arguments/),
  "an option without its value": usage("server --http-port", /argument missing/, "--http-port"),
  "a port that is text": usage("server --http-port abc", "abc", "--http-port"),
  "a port above 65535": usage("server --mqtt-port 70000", "70000", "65535"),
  "a log level that is none": usage("server --log-level loud", "loud", "info"),
  "an agent's log level that is none": usage("agent --source http:0 --log-level loud", "debug, info"),
  "an agent without a source": usage("agent", "--source"),
  "an agent's port that is text": usage("agent --source http:0 --port x", "--port"),
  "a tag that is none": usage("agent --source http:0 --tag x", "key=value"),
  "a kind that is none": usage("tap --kind none", "none", "predictions"),
  "threads of none": usage("model verify somewhere --threads 0", "--threads"),
  "an agent's source that is none": fails(
    2,
    "source_unknown",
    ({ dir }) => ["agent", "--state", join(dir, "agent"), "--source", "teapot:1"],
    "teapot",
  ),
  "a file that is not there": fails(
    1,
    "not_found",
    ({ dir }) => ["model", "inspect", join(dir, "nothing.onnx")],
    "nothing.onnx",
  ),
  "a model that is none": fails(1, "onnx_malformed", ({ dir }) => [
    "model",
    "inspect",
    join(dir, "garbage.onnx"),
    "--json",
  ]),
  "importing a model that is none": fails(1, "onnx_malformed", ({ dir }) => [
    "model",
    "import",
    join(dir, "garbage.onnx"),
    "--preset",
    "tensor",
    "--out",
    join(dir, "made"),
  ]),
  "a preset that is none": fails(
    2,
    "preset_unknown",
    ({ dir }) => [
      "model",
      "import",
      join(dir, "package", "fp32.onnx"),
      "--preset",
      "none",
      "--out",
      join(dir, "made"),
    ],
    "none",
  ),
  "a name that is none": fails(
    2,
    "invalid_argument",
    ({ dir }) => [
      "model",
      "import",
      join(dir, "package", "fp32.onnx"),
      "--preset",
      "tensor",
      "--name",
      "../x",
    ],
    "../x",
  ),
  "a folder without a manifest": fails(
    1,
    "not_found",
    ({ dir }) => ["model", "verify", join(dir, "empty"), "--json"],
    "manifest.json",
  ),
  "a package whose golden case fails": {
    args: ({ dir }) => ["model", "verify", join(dir, "wrong")],
    exit: 1,
    says: [],
  },
  "an input that is not there": fails(
    1,
    "not_found",
    ({ dir }) => ["model", "run", join(dir, "package"), join(dir, "nothing.png"), "--json"],
    "nothing.png",
  ),
  "a variant that is none": fails(
    1,
    "not_found",
    ({ dir }) => ["model", "run", join(dir, "package"), join(dir, "tiny.png"), "--variant", "none"],
    "none",
    "fp32",
  ),
  "an image of 17 MB": fails(1, "image_too_large", ({ dir }) => [
    "model",
    "run",
    join(dir, "package"),
    join(dir, "big.png"),
  ]),
  "an IDX file that is none": fails(
    2,
    "invalid_argument",
    ({ dir }) => ["model", "run", join(dir, "package"), join(dir, "garbage.idx")],
    "garbage.idx",
  ),
  "no token": fails(1, "unauthenticated", () => ["device", "list", "--json"], "FIELDLOOP_TOKEN"),
  "a server that is not there": fails(
    1,
    "unavailable",
    () => ["device", "list", "--server", "http://127.0.0.1:1", "--token", "x"],
    "127.0.0.1:1",
  ),
  "a server that is no address": fails(
    2,
    "invalid_argument",
    () => ["device", "list", "--server", "not an address", "--token", "x"],
    "not an address",
  ),
  "a device that nobody enrolled": fails(
    1,
    "not_found",
    ({ server, token }) => ["device", "show", "nobody", "--server", server, "--token", token],
    "nobody",
  ),
  "a device id that is a path": fails(2, "invalid_argument", ({ server, token }) => [
    "device",
    "show",
    "../control",
    "--server",
    server,
    "--token",
    token,
  ]),
  "a tag without a value": fails(
    2,
    "invalid_argument",
    ({ server, token }) => ["device", "tag", "control", "novalue", "--server", server, "--token", token],
    "novalue",
  ),
  "a port that is taken": fails(
    1,
    "unavailable",
    ({ dir, httpPort }) => [
      "server",
      "--data",
      join(dir, "taken"),
      "--http-port",
      httpPort,
      "--mqtt-port",
      "0",
    ],
    /in use|taken/,
  ),
  "a data folder that is a file": fails(
    1,
    "storage_failed",
    ({ dir }) => ["server", "--data", join(dir, "garbage.onnx"), "--http-port", "0", "--mqtt-port", "0"],
    "garbage.onnx",
  ),
  "a data folder that a server uses": fails(
    1,
    "database_in_use",
    ({ serverData }) => ["server", "--data", serverData, "--http-port", "0", "--mqtt-port", "0"],
    /process \d+/,
  ),
  "a database that is none": fails(
    1,
    "storage_failed",
    ({ dir }) => ["server", "--data", join(dir, "broken"), "--http-port", "0", "--mqtt-port", "0"],
    /database/i,
  ),
  "a key that others can read": fails(
    1,
    "storage_failed",
    ({ dir }) => ["server", "--data", join(dir, "open"), "--http-port", "0", "--mqtt-port", "0"],
    "600",
    "fleet-key.json",
  ),
  "a database address that is none": fails(
    2,
    "invalid_argument",
    ({ dir }) => [
      "server",
      "--data",
      join(dir, "address"),
      "--database",
      "mongodb://x",
      "--http-port",
      "0",
      "--mqtt-port",
      "0",
    ],
    "mongodb",
  ),
};

const gray = (bitDepth: 1 | 8 | 16, width: number, height: number): Buffer =>
  encodePng({
    width,
    height,
    bitDepth,
    colourType: 0,
    rows: () => Buffer.alloc(Math.ceil((width * bitDepth) / 8)),
  });
const colours = (plan: Pick<PngPlan, "bitDepth" | "colourType">, bytesPerPixel: number): Buffer =>
  encodePng({ ...plan, width: 32, height: 32, rows: (y) => Buffer.alloc(32 * bytesPerPixel, y * 7) });
/** A small PNG whose header claims another size. */
const claims = (width: number, height: number): Buffer =>
  Buffer.concat([pngHead({ width, height, bitDepth: 8, colourType: 0 }), tinyPng().subarray(33)]);
/** 8×8 pixels of four colour components (ITU-T T.81, one DC code and one end-of-block code), as printers' files have. */
const CMYK = Buffer.from(
  [
    "ffd8 ffee000e 41646f6265 0064000000000000",
    `ffdb0043 00 ${"01".repeat(64)}`,
    "ffc00014 08 0008 0008 04 011100 021100 031100 041100",
    `ffc40014 00 01${"00".repeat(15)} 00`,
    `ffc40014 10 01${"00".repeat(15)} 00`,
    "ffda000e 04 0100 0200 0300 0400 003f00 00 ffd9",
  ]
    .join("")
    .replaceAll(" ", ""),
  "hex",
);

/** Images as a device may be handed them; the code, or `fine` where there is a prediction. */
const IMAGES: Readonly<
  Record<string, { readonly bytes: (jpeg: Uint8Array) => Uint8Array; readonly code: ErrorCode | "fine" }>
> = {
  "a sound PNG": { bytes: () => tinyPng(), code: "fine" },
  "a sound JPEG": { bytes: (jpeg) => jpeg, code: "fine" },
  "16 bits a channel": { bytes: () => colours({ bitDepth: 16, colourType: 2 }, 6), code: "fine" },
  transparency: { bytes: () => colours({ bitDepth: 8, colourType: 6 }, 4), code: "fine" },
  "one bit": { bytes: () => gray(1, 32, 32), code: "fine" },
  "one pixel": { bytes: () => gray(8, 1, 1), code: "fine" },
  CMYK: { bytes: () => CMYK, code: "fine" },
  "a PNG bomb of 16383²": { bytes: () => gray(1, 16_383, 16_383), code: "image_too_large" },
  "a PNG that claims 65535²": { bytes: () => claims(65_535, 65_535), code: "image_too_large" },
  "a PNG that claims 2^31 − 1": { bytes: () => claims(2 ** 31 - 1, 2 ** 31 - 1), code: "image_undecodable" },
  "a PNG of no width": { bytes: () => claims(0, 16), code: "image_undecodable" },
  "a JPEG cut in half": { bytes: (jpeg) => jpeg.subarray(0, jpeg.length >> 1), code: "image_undecodable" },
  "a PNG cut in half": {
    bytes: () => tinyPng().subarray(0, tinyPng().length >> 1),
    code: "image_undecodable",
  },
  "a PNG with a flipped byte": {
    bytes: () => tinyPng().map((byte, at) => (at === 60 ? byte ^ 0xff : byte)),
    code: "image_undecodable",
  },
  "the mark of a PNG alone": { bytes: () => tinyPng().subarray(0, 8), code: "image_undecodable" },
  "the mark of a JPEG and garbage": {
    bytes: () => Buffer.concat([Buffer.from("ffd8ffe0", "hex"), Buffer.alloc(500, 0x5a)]),
    code: "image_undecodable",
  },
  "the mark of a WebP alone": {
    bytes: () => Buffer.from("RIFF\x10\0\0\0WEBPVP8 ", "latin1"),
    code: "image_undecodable",
  },
  nothing: { bytes: () => Buffer.alloc(0), code: "image_type_refused" },
  text: { bytes: () => Buffer.from("just text"), code: "image_type_refused" },
  GIF: {
    bytes: () =>
      Buffer.from(
        "4749463839610100010080000000000000000021f90400000000002c00000000010001000002024401003b",
        "hex",
      ),
    code: "image_type_refused",
  },
  TIFF: { bytes: () => Buffer.from("49492a0008000000000000000000", "hex"), code: "image_type_refused" },
  BMP: {
    bytes: () => Buffer.from("424d1e000000000000001a0000000c00000001000100010018000000ff00", "hex"),
    code: "image_type_refused",
  },
  SVG: {
    bytes: () => Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>'),
    code: "image_type_refused",
  },
  HTML: { bytes: () => Buffer.from("<!doctype html><script>1</script>"), code: "image_type_refused" },
  PDF: { bytes: () => Buffer.from("%PDF-1.7\n"), code: "image_type_refused" },
  HEIF: { bytes: () => Buffer.from("\0\0\0\x18ftypheic\0\0\0\0", "latin1"), code: "image_type_refused" },
  "a vips file": { bytes: () => Buffer.from("08f2a6b600000000", "hex"), code: "image_type_refused" },
};

export function cliRows(stage: () => Stage): void {
  describe("command line", () => {
    let dir: string;
    const results = new Map<string, CliResult>();
    let images: CliResult;

    beforeAll(async () => {
      dir = await mkdtemp(join(tmpdir(), "fieldloop-cli-"));
      await prepare(dir);
      const { httpUrl, httpPort, adminToken, dataDir } = stage().server;
      const place = {
        dir,
        server: httpUrl,
        serverData: dataDir,
        httpPort: String(httpPort),
        token: adminToken,
      };
      const calls = Object.entries(CALLS);
      const files = Object.keys(IMAGES).map((_, at) => join(dir, `image-${at}`));
      const work = [
        async () =>
          void (images = await runCli(["model", "run", join(dir, "package"), ...files, "--json"], {
            cwd: dir,
          })),
        ...calls.map(
          ([name, { args, env }]) =>
            async () =>
              void results.set(name, await runCli(args(place), { cwd: dir, ...(env ? { env } : {}) })),
        ),
      ];
      await Promise.all(
        Array.from({ length: PROCESSES }, async () => {
          for (let next = work.shift(); next; next = work.shift()) await next();
        }),
      );
    }, 300_000);
    afterAll(async () => {
      await rm(dir, { recursive: true, force: true });
      await stage().intact();
    });

    it.each(Object.entries(CALLS))("%s", (name, { args, exit, says }) => {
      stage().count("command line");
      const { code, stdout, stderr, signal } = results.get(name)!;
      expect([code, signal], stderr.slice(0, 800)).toEqual([exit, null]);
      for (const word of says) expect(stderr).toMatch(word);
      expect(stderr).not.toMatch(/\n\s+at |node:internal|Error: \{|\[object Object\]/);
      expect(stderr).not.toContain("internal");
      const wantsJson = args({ dir, server: "", serverData: "", httpPort: "", token: "" }).includes("--json");
      if (wantsJson && stdout !== "") expect(() => JSON.parse(stdout) as unknown).not.toThrow();
    });

    it("a package whose golden case fails is told by its code", () => {
      expect(results.get("a package whose golden case fails")!.stdout).toContain("golden_case_failed");
    });

    it.each(Object.entries(IMAGES))("image: %s", (name, { code }) => {
      stage().count("images");
      const { predictions } = JSON.parse(images.stdout) as {
        predictions: { error?: { code: string; message: string } }[];
      };
      const error = predictions[Object.keys(IMAGES).indexOf(name)]!.error;
      expect(error?.code ?? "fine", error?.message).toBe(code);
    });

    it("all images cost one process little memory", () => {
      expect(images.code).toBe(1);
      expect(images.rssBytesMax).toBeLessThan(RSS_BYTES_MAX);
    });
  });
}

async function prepare(dir: string): Promise<void> {
  await writeTinyPackage(join(dir, "package"));
  await writeTinyPackage(join(dir, "wrong"), { goldenError: 1 });
  for (const folder of ["empty", "broken", "open"]) await mkdir(join(dir, folder));
  await writeFile(join(dir, "garbage.onnx"), "this is not a model");
  await writeFile(join(dir, "garbage.idx"), "this is not IDX");
  await writeFile(join(dir, "tiny.png"), tinyPng());
  await writeFile(join(dir, "big.png"), Buffer.alloc(17 * 1024 * 1024));
  await writeFile(
    join(dir, "broken", "fieldloop.db"),
    "this is not a database, but long enough to be looked at".repeat(100),
  );
  await writeFile(join(dir, "open", "fleet-key.json"), "{}");
  await chmod(join(dir, "open", "fleet-key.json"), 0o644);
  const pixels = Uint8Array.from({ length: 64 * 64 * 3 }, (_, at) => (at * 37) & 0xff);
  const jpeg = await encodeJpeg({ kind: "pixels", data: pixels, width: 64, height: 64, channels: 3 }, 90);
  for (const [at, { bytes }] of Object.values(IMAGES).entries())
    await writeFile(join(dir, `image-${at}`), bytes(jpeg));
}
