import { type ChildProcess, spawn } from "node:child_process";
import { createSocket, type Socket as Datagrams } from "node:dgram";
import { existsSync, readFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { until } from "../../testing/fleet.test.kit.js";

/**
 * A network camera: RTSP over TCP (RFC 2326, interleaved as of 10.12) in front of an ffmpeg that sends a test picture as RTP, with
 * Basic authentication where a login is given.
 */
export class TestCamera {
  readonly requests: string[] = [];
  readonly #folder: string;
  readonly #login: string | undefined;
  readonly #players = new Set<Socket>();
  readonly #sockets = new Set<Socket>();
  #rtp!: Datagrams;
  #server!: Server;
  #encoder!: ChildProcess;
  #sdp = "";

  constructor(folder: string, login?: string) {
    this.#folder = folder;
    this.#login = login;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async start(): Promise<void> {
    this.#rtp = createSocket("udp4", (packet) => {
      const head = Buffer.from([0x24, 0, packet.length >> 8, packet.length & 0xff]);
      for (const player of this.#players) player.write(Buffer.concat([head, packet]));
    });
    await new Promise<void>((resolve) => this.#rtp.bind(0, "127.0.0.1", resolve));
    const sdpPath = join(this.#folder, "camera.sdp");
    this.#encoder = spawn(
      "ffmpeg",
      [
        ...["-nostdin", "-loglevel", "error", "-re", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=25"],
        ...["-c:v", "mpeg4", "-g", "5", "-flags:v", "+global_header", "-sdp_file", sdpPath],
        ...["-f", "rtp", `rtp://127.0.0.1:${this.#rtp.address().port}?pkt_size=1200`],
      ],
      { stdio: "ignore" },
    );
    await until(() => {
      this.#sdp = existsSync(sdpPath) ? readFileSync(sdpPath, "utf8") : "";
      return this.#sdp.includes("config=");
    }, "the camera describes itself");
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        this.#players.delete(socket);
        this.#sockets.delete(socket);
      });
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk.toString("latin1");
        for (let end = text.indexOf("\r\n\r\n"); end >= 0; end = text.indexOf("\r\n\r\n")) {
          this.#answer(socket, text.slice(0, end));
          text = text.slice(end + 4);
        }
      });
    });
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
  }

  /** As a camera does that loses its power. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.cut();
    this.#encoder.kill("SIGKILL");
    this.#rtp.close();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #answer(socket: Socket, request: string): void {
    const method = /^[A-Z_]+/.exec(request)?.[0] ?? "";
    const sequence = /^CSeq: *(\d+)/im.exec(request)?.[1] ?? "0";
    this.requests.push(request);
    const say = (status: string, headers: readonly string[] = [], body = ""): void => {
      socket.write(
        [
          `RTSP/1.0 ${status}`,
          `CSeq: ${sequence}`,
          ...headers,
          `Content-Length: ${body.length}`,
          "",
          body,
        ].join("\r\n"),
      );
    };
    const wanted = this.#login && `Basic ${Buffer.from(this.#login).toString("base64")}`;
    if (method === "OPTIONS") say("200 OK", ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"]);
    else if (wanted !== undefined && !request.includes(wanted)) {
      say("401 Unauthorized", ['WWW-Authenticate: Basic realm="camera"']);
    } else if (method === "DESCRIBE") {
      const sdp = `${this.#sdp.trim()}\r\na=control:track0\r\n`;
      say(
        "200 OK",
        ["Content-Type: application/sdp", `Content-Base: rtsp://127.0.0.1:${this.port}/live/`],
        sdp,
      );
    } else if (method === "SETUP") {
      say("200 OK", ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]);
    } else if (method === "PLAY") {
      say("200 OK", ["Session: 1", "Range: npt=0-"]);
      this.#players.add(socket);
    } else say("200 OK", ["Session: 1"]);
  }
}
