import type { ImageInput } from "@fieldloop/protocol";
import { IDENTITY_GEOMETRY, type Geometry } from "./frame.js";

/** Pixels: the source is cut to `crop`, scaled to `width × height`, and placed at `left`, `top` of the model's input. */
export interface ResizePlan {
  readonly crop: {
    readonly left: number;
    readonly top: number;
    readonly width: number;
    readonly height: number;
  };
  readonly width: number;
  readonly height: number;
  readonly left: number;
  readonly top: number;
  readonly geometry: Geometry;
}

/** How an image of `width × height` pixels becomes the model's input, in whole pixels. */
export function planResize(
  input: Pick<ImageInput, "width" | "height" | "resize" | "letterbox">,
  width: number,
  height: number,
): ResizePlan {
  const whole = { left: 0, top: 0, width, height };
  switch (input.resize) {
    case "stretch":
      return {
        crop: whole,
        width: input.width,
        height: input.height,
        left: 0,
        top: 0,
        geometry: IDENTITY_GEOMETRY,
      };
    case "letterbox": {
      const scale = Math.min(input.width / width, input.height / height);
      const scaledWidth = clampSize(width * scale, input.width);
      const scaledHeight = clampSize(height * scale, input.height);
      const before = input.letterbox?.align === "start" ? 0 : 0.5;
      const left = Math.floor((input.width - scaledWidth) * before);
      const top = Math.floor((input.height - scaledHeight) * before);
      const geometry = {
        scaleX: input.width / scaledWidth,
        scaleY: input.height / scaledHeight,
        offsetX: -left / scaledWidth,
        offsetY: -top / scaledHeight,
      };
      return { crop: whole, width: scaledWidth, height: scaledHeight, left, top, geometry };
    }
    case "crop": {
      const scale = Math.min(width / input.width, height / input.height);
      const cropWidth = clampSize(input.width * scale, width);
      const cropHeight = clampSize(input.height * scale, height);
      const left = Math.floor((width - cropWidth) / 2);
      const top = Math.floor((height - cropHeight) / 2);
      const geometry = {
        scaleX: cropWidth / width,
        scaleY: cropHeight / height,
        offsetX: left / width,
        offsetY: top / height,
      };
      return {
        crop: { left, top, width: cropWidth, height: cropHeight },
        width: input.width,
        height: input.height,
        left: 0,
        top: 0,
        geometry,
      };
    }
  }
}

function clampSize(size: number, max: number): number {
  return Math.min(Math.max(Math.round(size), 1), max);
}
