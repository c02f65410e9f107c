import type { MediaType } from "@fieldloop/protocol";
import type { Frame } from "./frame.js";
import { parseRow } from "./row.js";

/**
 * The frame that a stored sample is: an encoded image, a window of float32 little-endian samples, or a row as JSON.
 * @throws FieldloopError `row_malformed`, `limit_exceeded`
 */
export function sampleFrame(mediaType: MediaType, payload: Uint8Array): Frame {
  switch (mediaType) {
    case "image/jpeg":
    case "image/png":
      return { kind: "encoded", bytes: payload };
    case "application/x-fieldloop-window":
      // A copy: a payload in the middle of a file need not begin at a multiple of four.
      return {
        kind: "window",
        samples: new Float32Array(payload.slice().buffer, 0, Math.floor(payload.length / 4)),
      };
    case "application/json":
      return parseRow(payload);
  }
}
