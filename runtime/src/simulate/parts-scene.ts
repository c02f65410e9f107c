/**
 * A camera over a conveyor belt that looks at one machine part at a time: the source of the shipped `parts`
 * model's data and of the demo's cameras. A frame is a pure function of (seed, index, condition): the part and
 * its place depend on seed and index only, so the same part can be seen under two conditions.
 */
import { type CameraCondition, type CameraConditionName, cameraConditions } from "./parts-condition.js";
import {
  applyLight,
  blur,
  type CameraDraw,
  drawCamera,
  drawLensDirt,
  type LensDirt,
  readSensor,
} from "./parts-camera.js";
import { newPartClass, type PartClass, partClasses } from "./part-shapes.js";
import { paintBelt, type PartPose, paintPart } from "./parts-paint.js";
import { hashText, Random } from "./random.js";

/** Width and height of a frame in pixels. */
export const partsFrameSize = 64;

/** What the simulator knows and a device does not: only ever sent as feedback or as labels. */
export interface PartsTruth {
  readonly label: PartClass;
  /** Index in {@link partClasses}, or -1 for the new part type. */
  readonly labelIndex: number;
  readonly condition: string;
  readonly pose: PartPose;
  readonly camera: CameraDraw;
}

export interface PartsFrame {
  readonly seed: number;
  readonly index: number;
  /** RGB, height × width × 3, 0..255. A fresh array for every frame. */
  readonly pixels: Uint8Array;
  readonly width: number;
  readonly height: number;
  readonly label: PartClass;
  readonly truth: PartsTruth;
}

export interface PartsSceneOptions {
  /** Seed of the device: decides its parts, its lamp and the dirt on its lens. */
  readonly seed: number;
  readonly condition?: CameraCondition | CameraConditionName;
  /** Index of the first frame; frames before it are skipped without drawing them. */
  readonly firstIndex?: number;
  /** Share of frames that show the part type unknown to the model, 0..1. */
  readonly newPartShare?: number;
}

/** An endless stream of frames; the condition may change between two frames. */
export interface PartsScene {
  next(): PartsFrame;
  /** The frame at any index, without moving the stream. */
  at(index: number): PartsFrame;
  setCondition(condition: CameraCondition | CameraConditionName): void;
  setNewPartShare(share: number): void;
  readonly condition: CameraCondition;
}

/** Opens a scene. Drawing a frame takes well under 2 ms on one core. */
export function createPartsScene(options: PartsSceneOptions): PartsScene {
  return new Scene(options);
}

class Scene implements PartsScene {
  readonly #seed: number;
  readonly #light = new Float32Array(partsFrameSize * partsFrameSize * 3);
  readonly #scratch = new Float32Array(partsFrameSize * partsFrameSize * 3);
  #condition: CameraCondition;
  #dirt: LensDirt;
  #newPartShare: number;
  #index: number;

  constructor(options: PartsSceneOptions) {
    this.#seed = options.seed;
    this.#condition = toCondition(options.condition ?? "normal");
    this.#dirt = drawLensDirt(this.#condition, this.#seed, partsFrameSize);
    this.#newPartShare = options.newPartShare ?? 0;
    this.#index = options.firstIndex ?? 0;
  }

  get condition(): CameraCondition {
    return this.#condition;
  }

  setCondition(condition: CameraCondition | CameraConditionName): void {
    this.#condition = toCondition(condition);
    this.#dirt = drawLensDirt(this.#condition, this.#seed, partsFrameSize);
  }

  setNewPartShare(share: number): void {
    this.#newPartShare = share;
  }

  next(): PartsFrame {
    return this.at(this.#index++);
  }

  at(index: number): PartsFrame {
    const scene = new Random(this.#seed, index, hashText("scene"));
    const known = scene.int(partClasses.length);
    const isNew = scene.uniform() < this.#newPartShare;
    const label: PartClass = isNew ? newPartClass : partClasses[known];
    const camera = drawCamera(this.#condition, this.#seed, new Random(this.#seed, index, hashText("camera")));
    const light = this.#light;
    paintBelt(light, partsFrameSize, scene);
    const pose = paintPart(light, partsFrameSize, label, camera.lightRad, scene);
    applyLight(light, camera, this.#dirt, partsFrameSize);
    blur(light, this.#scratch, camera.blurSigmaPx, partsFrameSize);
    const pixels = readSensor(light, camera.noise, new Random(this.#seed, index, hashText("sensor")));
    const truth = { label, labelIndex: isNew ? -1 : known, condition: this.#condition.name, pose, camera };
    return {
      seed: this.#seed,
      index,
      pixels,
      width: partsFrameSize,
      height: partsFrameSize,
      label,
      truth,
    };
  }
}

function toCondition(condition: CameraCondition | CameraConditionName): CameraCondition {
  return typeof condition === "string" ? cameraConditions[condition] : condition;
}
