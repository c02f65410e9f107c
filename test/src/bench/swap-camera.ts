import { Agent, request } from "node:http";
import { encodeJpeg } from "@fieldloop/runtime/node";
import { createPartsScene } from "@fieldloop/runtime/simulate";

/** What the camera is told. */
export type CameraOrder =
  | { readonly kind: "shoot"; readonly port: number; readonly fps: number }
  /** Frames that are due from now on belong to it. */
  | { readonly kind: "phase"; readonly phase: string }
  | { readonly kind: "stop" };

/** Milliseconds since the epoch. */
export interface Frame {
  readonly due: number;
  readonly sent: number;
  readonly answered: number;
}

/** What it says: the frames of each phase. */
export interface CameraReport {
  readonly phases: Readonly<Record<string, { readonly frames: Frame[]; readonly lost: number }>>;
}
/** `ready`: its pictures are made. */
export type CameraNews = "ready" | "shooting" | CameraReport;

const SOCKETS = 8;
const PICTURES = 32;
const RETRY_MS = 100;

/** Sends a frame each time that one is due, without waiting for the answers. A frame without a prediction is lost. */
class Camera {
  readonly #sockets = new Agent({ keepAlive: true, maxSockets: SOCKETS });
  readonly #open = new Set<Promise<void>>();
  readonly #phases: Record<string, { frames: Frame[]; lost: number }> = {};
  readonly #pictures: readonly Uint8Array[];
  #phase = "";
  #timer: NodeJS.Timeout | undefined;
  #from = 0;
  #sent = 0;

  constructor(pictures: readonly Uint8Array[]) {
    this.#pictures = pictures;
  }

  begin(phase: string): void {
    this.#phase = phase;
  }

  async shoot(port: number, fps: number): Promise<void> {
    while (!(await post(port, this.#pictures[0]!).catch(() => false))) await sleep(RETRY_MS);
    this.#from = performance.now();
    this.#next(port, fps);
  }

  async stop(): Promise<CameraReport> {
    clearTimeout(this.#timer);
    await Promise.all(this.#open);
    this.#sockets.destroy();
    return { phases: this.#phases };
  }

  #next(port: number, fps: number): void {
    const dueMs = this.#from + (this.#sent * 1000) / fps;
    this.#timer = setTimeout(
      () => {
        const sending = this.#send(port, dueMs).finally(() => this.#open.delete(sending));
        this.#open.add(sending);
        this.#next(port, fps);
      },
      Math.max(0, dueMs - performance.now()),
    );
  }

  async #send(port: number, dueMs: number): Promise<void> {
    const body = this.#pictures[this.#sent++ % this.#pictures.length]!;
    const sentMs = performance.now();
    this.#phases[this.#phase] ??= { frames: [], lost: 0 };
    const counts = this.#phases[this.#phase]!;
    if (await post(port, body, this.#sockets).catch(() => false)) {
      const { timeOrigin } = performance;
      const [due, sent, answered] = [dueMs, sentMs, performance.now()].map((ms) => timeOrigin + ms);
      counts.frames.push({ due: due!, sent: sent!, answered: answered! });
    } else counts.lost++;
  }
}

/** True where the answer is a prediction. */
function post(port: number, body: Uint8Array, agent?: Agent): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "image/jpeg", "content-length": body.length };
    const call = request({ host: "127.0.0.1", port, method: "POST", agent, headers }, (response) => {
      response.resume();
      response.once("error", reject);
      response.once("end", () => resolve(response.statusCode === 200));
    });
    call.once("error", reject);
    call.end(body);
  });
}

async function takePictures(): Promise<Uint8Array[]> {
  const scene = createPartsScene({ seed: 7 });
  const images: Uint8Array[] = [];
  for (let at = 0; at < PICTURES; at++) {
    const { pixels, width, height } = scene.next();
    images.push(await encodeJpeg({ kind: "pixels", data: pixels, width, height, channels: 3 }, 90));
  }
  return images;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Resolves when it is on its way: a long report is not there at once. */
const tell = (news: CameraNews): Promise<void> =>
  new Promise((resolve) => process.send!(news, undefined, undefined, () => resolve()));
const camera = new Camera(await takePictures());
process.on("message", (order: CameraOrder) => {
  void (async () => {
    if (order.kind === "phase") camera.begin(order.phase);
    else if (order.kind === "shoot") {
      await camera.shoot(order.port, order.fps);
      await tell("shooting");
    } else {
      await tell(await camera.stop());
      process.disconnect();
    }
  })();
});
await tell("ready");
