import { createHash } from "node:crypto";
import type { Frame } from "@fieldloop/runtime";

/** SHA-256 of the frame as the source gave it. */
export function hashFrame(frame: Frame): string {
  const hash = createHash("sha256");
  switch (frame.kind) {
    case "encoded":
      return hash.update(frame.bytes).digest("hex");
    case "pixels":
      return hash.update(frame.data).digest("hex");
    case "window": {
      const { buffer, byteOffset, byteLength } = frame.samples;
      return hash.update(new Uint8Array(buffer, byteOffset, byteLength)).digest("hex");
    }
    case "row":
      return hash.update(JSON.stringify(frame.values)).digest("hex");
    case "tensors":
      for (const tensor of Object.values(frame.feeds)) {
        if (Array.isArray(tensor.data)) hash.update(JSON.stringify(tensor.data));
        else hash.update(new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength));
      }
      return hash.digest("hex");
  }
}
