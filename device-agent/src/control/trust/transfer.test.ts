import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createHash, randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../clock.js";
import { serveBytes } from "../../testing/tuf-server.test.kit.js";
import { httpFetch } from "../http-fetch.js";
import { MemorySink } from "./sinks.js";
import { fetchTargetBytes, fetchTargetFile, type TargetInfo } from "./targets.js";
import { transfer, type TransferOptions } from "./transfer.js";

const CONTENT = randomBytes(64 * 1024);
const TARGET: TargetInfo = {
  path: "content",
  length: CONTENT.length,
  hashes: { sha256: createHash("sha256").update(CONTENT).digest("hex") },
};

let server: Server;
let url: string;
let answers: ((response: ServerResponse, request: IncomingMessage) => void)[];
let ranges: (string | undefined)[];

beforeEach(async () => {
  answers = [];
  ranges = [];
  server = createServer((request, response) => {
    ranges.push(request.headers.range);
    const answer = answers.length > 1 ? answers.shift()! : answers[0]!;
    answer(response, request);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/content`;
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

const whole = (response: ServerResponse, request: IncomingMessage): void =>
  serveBytes(response, request, CONTENT);

/** Cuts the connection after `bytes` more of the content. */
const cutAfter =
  (bytes: number, etag: string | null = '"one"') =>
  (response: ServerResponse, request: IncomingMessage): void => {
    const asked = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    const from = etag !== null && request.headers["if-range"] === etag ? asked : 0;
    response.writeHead(from > 0 ? 206 : 200, {
      "content-length": CONTENT.length - from,
      ...(etag === null ? {} : { etag }),
      ...(from > 0 ? { "content-range": `bytes ${from}-${CONTENT.length - 1}/${CONTENT.length}` } : {}),
    });
    response.write(CONTENT.subarray(from, from + bytes));
    setTimeout(() => response.destroy(), 20);
  };

function options(change: Partial<TransferOptions> = {}): TransferOptions {
  return {
    fetch: httpFetch,
    clock: systemClock,
    random: () => 0,
    signal: AbortSignal.timeout(15_000),
    ...change,
    limits: { retryMinMs: 1, retryMaxMs: 2, stallMs: 1_000, ...change.limits },
  };
}

async function fetched(bytesMax = CONTENT.length, change: Partial<TransferOptions> = {}): Promise<Buffer> {
  const sink = new MemorySink();
  await transfer(url, bytesMax, sink, options(change));
  return sink.bytes();
}

describe("transfer", () => {
  it("goes on where it was cut, as long as the entity tag says that it is the same", async () => {
    answers = [cutAfter(20_000), cutAfter(20_000), cutAfter(20_000), cutAfter(CONTENT.length)];
    expect((await fetched()).equals(CONTENT)).toBe(true);
    expect(ranges).toEqual([undefined, "bytes=20000-", "bytes=40000-", "bytes=60000-"]);
  });

  it("begins anew where the sender has another content by now, or no entity tag", async () => {
    answers = [cutAfter(20_000, '"old"'), whole];
    expect((await fetched()).equals(CONTENT)).toBe(true);
    answers = [cutAfter(20_000, null), whole];
    ranges = [];
    expect((await fetched()).equals(CONTENT)).toBe(true);
    expect(ranges).toEqual([undefined, undefined]);
  });

  it("takes no byte above the limit, announced or not", async () => {
    answers = [whole];
    await expect(fetched(CONTENT.length - 1)).rejects.toMatchObject({ code: "trust_metadata_too_large" });
    let sent = 0;
    answers = [
      (response) => {
        response.writeHead(200);
        const timer = setInterval(() => {
          sent += CONTENT.length;
          response.write(CONTENT);
        }, 1);
        response.on("close", () => clearInterval(timer));
      },
    ];
    await expect(fetched(100_000)).rejects.toMatchObject({ code: "trust_metadata_too_large" });
    expect(sent).toBeLessThan(4_000_000);
  });

  it("ends a transfer that trickles: slow retrieval", async () => {
    answers = [
      (response) => {
        response.writeHead(200, { "content-length": 1_000 });
        const timer = setInterval(() => response.write("x"), 5);
        response.on("close", () => clearInterval(timer));
      },
    ];
    const limits = { rateWindowMs: 200, rateBytesPerSecondMin: 10_000 };
    await expect(fetched(1_000, { limits })).rejects.toMatchObject({ code: "download_too_slow" });
    expect(ranges).toHaveLength(1);
  });

  it("does not take the device's own bandwidth budget for a slow sender", async () => {
    answers = [whole];
    const taken: number[] = [];
    let monotonic = 0;
    const clock = { now: () => 0, monotonic: () => monotonic };
    const budget = (bytes: number): Promise<void> => {
      taken.push(bytes);
      monotonic += 3_600_000;
      return Promise.resolve();
    };
    expect((await fetched(CONTENT.length, { budget, clock })).equals(CONTENT)).toBe(true);
    expect(taken.reduce((sum, bytes) => sum + bytes, 0)).toBe(CONTENT.length);
  });

  it("gives up on silence, on crumbs and on a server in trouble after a few tries", async () => {
    const limits = { attemptsMax: 3, stallMs: 60 };
    answers = [(response) => response.writeHead(200, { "content-length": 10 }).flushHeaders()];
    await expect(fetched(10, { limits })).rejects.toMatchObject({ code: "trust_unreachable" });
    answers = [cutAfter(100)];
    await expect(fetched(undefined, { limits })).rejects.toMatchObject({ code: "trust_unreachable" });
    answers = [(response) => void response.writeHead(503).end()];
    await expect(fetched(10, { limits })).rejects.toMatchObject({ code: "trust_unreachable" });
    expect(ranges).toHaveLength(9);
  });

  it("tells refusals at once: of the credential, of the file, of a redirect", async () => {
    for (const [status, code] of [
      [401, "unauthenticated"],
      [404, "trust_unreachable"],
    ] as const) {
      answers = [(response) => void response.writeHead(status).end()];
      await expect(fetched()).rejects.toMatchObject({ code, statusCode: status });
    }
    expect(ranges).toHaveLength(2);
    answers = [(response) => void response.writeHead(302, { location: "/elsewhere" }).end()];
    await expect(fetched(10, { limits: { attemptsMax: 1 } })).rejects.toMatchObject({
      code: "trust_unreachable",
    });
  });

  it("stops when it is told to, with the reason that it is told", async () => {
    answers = [(response) => response.writeHead(200).flushHeaders()];
    const abort = new AbortController();
    const running = fetched(10, { signal: abort.signal });
    setTimeout(() => abort.abort(), 30);
    await expect(running).rejects.toMatchObject({ code: "cancelled" });
  });
});

describe("targets", () => {
  let directory: string;
  beforeEach(async () => (directory = await mkdtemp(join(tmpdir(), "fieldloop-target-"))));
  afterEach(() => rm(directory, { recursive: true }));

  async function begin(bytes: Uint8Array): Promise<void> {
    await mkdir(join(directory, ".parts"), { recursive: true });
    await writeFile(join(directory, ".parts", "content"), bytes);
  }

  it("goes on with what an earlier process began, and begins anew where that was of another file", async () => {
    const path = join(directory, "content");
    answers = [whole];
    await begin(CONTENT.subarray(0, 1_000));
    await fetchTargetFile(TARGET, url, path, options());
    expect(ranges).toEqual(["bytes=1000-"]);
    expect((await readFile(path)).equals(CONTENT)).toBe(true);
    for (const begun of [randomBytes(1_000), randomBytes(CONTENT.length), randomBytes(CONTENT.length + 5)]) {
      await rm(path);
      await begin(begun);
      await fetchTargetFile(TARGET, url, path, options());
      expect((await readFile(path)).equals(CONTENT)).toBe(true);
    }
  });

  it("refuses another content, a longer and a shorter one, and leaves nothing", async () => {
    const path = join(directory, "content");
    const other = randomBytes(CONTENT.length);
    for (const content of [other, Buffer.concat([CONTENT, Buffer.from("!")]), CONTENT.subarray(1)]) {
      answers = [(response, request) => serveBytes(response, request, content)];
      await expect(fetchTargetFile(TARGET, url, path, options())).rejects.toMatchObject({
        code: "trust_target_mismatch",
      });
      await expect(fetchTargetBytes(TARGET, url, options())).rejects.toMatchObject({
        code: "trust_target_mismatch",
      });
      expect(await readdir(directory)).toEqual([".parts"]);
      expect(await readdir(join(directory, ".parts"))).toEqual([]);
    }
  });

  it("refuses a target whose hashes it cannot make, or that has none", async () => {
    answers = [whole];
    const wrong: Record<string, string>[] = [{}, { md5: "00" }, { ...TARGET.hashes, unknown: "00" }];
    for (const hashes of wrong) {
      await expect(fetchTargetBytes({ ...TARGET, hashes }, url, options())).rejects.toMatchObject({
        code: "trust_target_mismatch",
      });
    }
  });
});
