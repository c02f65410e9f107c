import { FieldloopError } from "@fieldloop/protocol";
import type { Frame } from "@fieldloop/runtime";
import {
  type BearingCondition,
  bearingFaults,
  cameraConditions,
  createBearingSignal,
  createPartsScene,
  hashSeed,
  isCameraConditionName,
} from "@fieldloop/runtime/simulate";
import { AGENT_LIMITS } from "../../limits.js";
import type { SourceSpec } from "../../source-spec.js";
import { Pace } from "./pace.js";
import type { DropPolicy, Source, SourceContext, WindowShape } from "./source.js";

type SimulatorSpec = Extract<SourceSpec, { kind: "simulator" }>;

/** A generator of frames that knows their truth. */
interface Scene {
  /** @param shape of the window that the active model wants */
  next(shape: WindowShape | undefined): { frame: Frame; label: string };
  setCondition(condition: string): void;
}

interface Told {
  readonly n: number;
  readonly label: string;
  readonly dueAt: number;
}

/**
 * A simulated camera or sensor. Its truth leaves it in two ways only: as delayed feedback for a share of its predictions,
 * chosen by a hash of their number (so that nothing about a frame decides), and to a question on the local interface.
 */
export class SimulatorSource implements Source {
  readonly dropPolicy: DropPolicy = "oldest";
  readonly #spec: SimulatorSpec;
  readonly #context: SourceContext;
  readonly #scene: Scene;
  readonly #pace: Pace;
  readonly #labelByKey = new Map<number, string>();
  readonly #labelByN = new Map<number, string>();
  #nextKey = 0;
  #told: Told[] = [];
  #timer: NodeJS.Timeout | undefined;

  /** `firstIndex` is the scene's index of the first frame: no start of the agent shows frames of another. */
  constructor(spec: SimulatorSpec, context: SourceContext, firstIndex: number) {
    this.#spec = spec;
    this.#context = context;
    this.#scene =
      spec.scene === "parts" ? new PartsCamera(spec, firstIndex) : new BearingSensor(spec, firstIndex);
    this.#pace = new Pace({
      fps: spec.fps,
      now: () => context.clock.monotonic(),
      work: (dueMs) => this.#deliver(dueMs),
      onMissed: (count) => context.sink.noteMissed(count),
    });
  }

  open(): Promise<void> {
    this.#pace.start();
    this.#timer = setInterval(() => this.#tell(), AGENT_LIMITS.simulatorFeedbackIntervalMs);
    return Promise.resolve();
  }

  close(): Promise<void> {
    this.#pace.stop();
    clearInterval(this.#timer);
    return Promise.resolve();
  }

  setCondition(condition: string): void {
    this.#scene.setCondition(condition);
  }

  truth(n: number): string | undefined {
    return this.#labelByN.get(n);
  }

  predicted(key: number, n: number): void {
    const label = this.#labelByKey.get(key);
    if (label === undefined) return;
    this.#labelByKey.delete(key);
    remember(this.#labelByN, n, label);
    if (hashSeed(this.#spec.seed, n) / 2 ** 32 >= this.#spec.feedback) return;
    this.#told.push({ n, label, dueAt: this.#context.clock.monotonic() + this.#spec.feedbackDelayMs });
  }

  #deliver(dueMs: number): void {
    const { clock, sink } = this.#context;
    const { frame, label } = this.#scene.next(this.#context.window?.());
    const key = this.#nextKey++;
    remember(this.#labelByKey, key, label);
    // When it was exposed, not when this process came to it: cameras stamp their frames in regular steps.
    sink.offer({ frame, time: clock.now() - (clock.monotonic() - dueMs), key });
  }

  #tell(): void {
    const now = this.#context.clock.monotonic();
    const due = this.#told.filter((item) => item.dueAt <= now);
    if (due.length === 0) return;
    this.#told = this.#told.filter((item) => item.dueAt > now);
    this.#context.onFeedback(due.map(({ n, label }) => ({ n, label })));
  }
}

/** A map keeps the order of insertion: the oldest goes first. */
function remember(map: Map<number, string>, key: number, label: string): void {
  map.set(key, label);
  if (map.size > AGENT_LIMITS.simulatorTruthsMax) map.delete(map.keys().next().value!);
}

class PartsCamera implements Scene {
  readonly #scene;

  constructor(spec: SimulatorSpec, firstIndex: number) {
    this.#scene = createPartsScene({
      seed: spec.seed,
      condition: toCameraCondition(spec.condition),
      newPartShare: spec.newPartShare,
      firstIndex,
    });
  }

  next(): { frame: Frame; label: string } {
    const { pixels, width, height, label } = this.#scene.next();
    return { frame: { kind: "pixels", data: pixels, width, height, channels: 3 }, label };
  }

  setCondition(condition: string): void {
    this.#scene.setCondition(toCameraCondition(condition));
  }
}

class BearingSensor implements Scene {
  readonly #signal;

  constructor(spec: SimulatorSpec, firstIndex: number) {
    this.#signal = createBearingSignal({
      seed: spec.seed,
      condition: toBearingCondition(spec.condition),
      firstIndex,
    });
  }

  /** One channel at the sensor's own rate: of the shape it takes length and hop. */
  next(shape: WindowShape | undefined): { frame: Frame; label: string } {
    const isPossible = shape !== undefined && shape.length <= AGENT_LIMITS.windowValuesMax;
    const { samples, truth } = this.#signal.next(isPossible ? shape : undefined);
    // The labels of an anomaly head that names no others.
    return { frame: { kind: "window", samples }, label: truth.faulty ? "anomalous" : "normal" };
  }

  setCondition(condition: string): void {
    this.#signal.setCondition(toBearingCondition(condition));
  }
}

function toCameraCondition(name: string): keyof typeof cameraConditions {
  if (isCameraConditionName(name)) return name;
  throw refused(name, Object.keys(cameraConditions).join(", "));
}

/** `none`, or a fault with its severity: `outer-race:0.8`. */
function toBearingCondition(text: string): BearingCondition {
  const [name, severityText] = text.split(":");
  const fault = bearingFaults.find((candidate) => candidate === name);
  const severity = severityText === undefined ? (fault === "none" ? 0 : 0.8) : Number(severityText);
  if (fault === undefined || !(severity >= 0 && severity <= 1)) {
    throw refused(text, `${bearingFaults.join(", ")}, with a severity of 0 to 1 after a colon`);
  }
  return { fault, severity };
}

function refused(condition: string, wanted: string): FieldloopError {
  return new FieldloopError(
    "invalid_argument",
    `Set condition: no "${condition.slice(0, 64)}", there are ${wanted}`,
  );
}
