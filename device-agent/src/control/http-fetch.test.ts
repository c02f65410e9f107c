import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { afterEach, describe, expect, it } from "vitest";
import { httpFetch, type HttpAnswer } from "./http-fetch.js";

describe("httpFetch", () => {
  let close: (() => void) | undefined;
  afterEach(() => close?.());

  async function serve(
    answer: (request: IncomingMessage, response: ServerResponse) => void,
  ): Promise<string> {
    const server = createServer(answer);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    close = () => {
      server.close();
      server.closeAllConnections();
    };
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  }

  it("gives status, headers and body, and sends what it is told to", async () => {
    const url = await serve((request, response) => {
      request.setEncoding("utf8");
      let body = "";
      request.on("data", (part: string) => (body += part));
      request.on("end", () => {
        response.writeHead(201, { "X-One": "1" });
        response.end(`${request.method} ${String(request.headers["x-asked"])} ${body}`);
      });
    });
    const answer = await httpFetch(url, { method: "POST", headers: { "x-asked": "so" }, body: "text" });
    expect([answer.status, answer.headers.get("x-one"), answer.headers.get("x-two")]).toEqual([
      201,
      "1",
      null,
    ]);
    expect(await textOf(answer)).toBe("POST so text");
  });

  it("follows no redirect", async () => {
    const url = await serve((_, response) => response.writeHead(302, { location: "/elsewhere" }).end());
    expect((await httpFetch(url)).status).toBe(302);
  });

  it("asks again where the connection that was kept has gone, and only then", async () => {
    let requests = 0;
    let asked = 0;
    const url = await serve((request, response) => {
      asked++;
      // The first request of a connection is answered; the next one finds it closed.
      if (++requests === 1) response.end("kept");
      else {
        requests = 0;
        request.socket.destroy();
      }
    });
    expect(await textOf(await httpFetch(url))).toBe("kept");
    expect(await textOf(await httpFetch(url))).toBe("kept");
    expect(asked).toBe(3);
    await expect(httpFetch(url, { method: "POST" })).rejects.toThrow(/socket hang up|ECONNRESET/);
    requests = 1;
    await expect(httpFetch(url)).rejects.toThrow(/socket hang up|ECONNRESET/);
  });

  it("gives all that came of a body that is cut, then an error, however late it is read", async () => {
    const url = await serve((_, response) => {
      response.writeHead(200, { "content-length": "1000" });
      response.write("half");
      setTimeout(() => response.destroy(), 20);
    });
    const { body } = await httpFetch(url);
    await new Promise((resolve) => setTimeout(resolve, 200));
    const parts = body[Symbol.asyncIterator]();
    expect(await parts.next()).toMatchObject({ value: Buffer.from("half") });
    await expect(parts.next()).rejects.toThrow("aborted");
  });

  it("does not take more in than is read", async () => {
    const part = Buffer.alloc(64 * 1024, 1);
    const count = 1_000;
    let taken = 0;
    const parts = function* (): Generator<Buffer> {
      for (; taken < count; taken++) yield part;
    };
    const url = await serve((_, response) => void Readable.from(parts()).pipe(response));
    const { body } = await httpFetch(url);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(taken).toBeLessThan(count / 2);
    let bytes = 0;
    for await (const arrived of body) bytes += arrived.length;
    expect(bytes).toBe(count * part.length);
  });

  it("ends by its signal, before the answer and in it, with the signal's reason", async () => {
    const url = await serve((request, response) => {
      if (request.url === "/body") response.writeHead(200).write("first");
    });
    const early = new AbortController();
    const asked = httpFetch(url, { signal: early.signal });
    early.abort(new Error("enough"));
    await expect(asked).rejects.toThrow("enough");
    await expect(httpFetch(url, { signal: early.signal })).rejects.toThrow("enough");
    const late = new AbortController();
    const answer = await httpFetch(`${url}body`, { signal: late.signal });
    const read = textOf(answer);
    late.abort();
    await expect(read).rejects.toThrow();
  });

  it("gives the connection up with the rest of the body", async () => {
    const closed = new Promise<void>((resolve) => {
      void serve((_, response) => {
        response.writeHead(200).write("endless");
        response.once("close", resolve);
      }).then(async (url) => (await httpFetch(url)).cancel());
    });
    await closed;
  });

  it("keeps the connection of an answer that has no body", async () => {
    const sockets = new Set<unknown>();
    const url = await serve((request, response) => {
      sockets.add(request.socket);
      response.writeHead(200, { "content-length": "1000" }).end();
    });
    for (let request = 0; request < 3; request++) {
      expect((await httpFetch(url, { method: "HEAD" })).status).toBe(200);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    expect(sockets.size).toBe(1);
  });

  it("says why nobody answers", async () => {
    await expect(httpFetch("http://127.0.0.1:1/")).rejects.toThrow("ECONNREFUSED");
    await expect(httpFetch("ftp://127.0.0.1/")).rejects.toThrow("Protocol");
  });
});

async function textOf({ body }: HttpAnswer): Promise<string> {
  const parts: Uint8Array[] = [];
  for await (const part of body) parts.push(part);
  return Buffer.concat(parts).toString("utf8");
}
