/** `@fieldloop/runtime/delta`: deltas between model files. Apart, because reading one needs nothing else of the runtime. */
export { readDeltaHeader, DELTA_HEADER_BYTES, type DeltaHeader } from "../delta/header.js";
export { DELTA_LIMITS } from "../delta/limits.js";
export { applyDeltaFile, applyDeltaTo, makeDeltaOf } from "./delta-file.js";
