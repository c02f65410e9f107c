import type { Tensor } from "../backend.js";
import type { Frame } from "../input/frame.js";
import type { Prediction } from "../predict.js";
import type { WireBatchItem, WorkerRequest } from "./worker-messages.js";

/** Below it a copy is cheaper than handing memory over. */
const LARGE_BYTES = 64 * 1024;

/** Buffers that frames fill wholly: moving one that others share would empty their views too. */
export function ownedBuffers(frames: readonly Frame[]): ArrayBuffer[] {
  return wholeBuffers(frames.flatMap(viewsOf));
}

/**
 * Buffers of a reply that may move to the caller: those of outputs run for it alone and of results that a head made anew.
 * Everything else may be a view of an output that a stream still needs as its state.
 */
export function largeBuffers(kind: WorkerRequest["kind"], value: unknown): ArrayBuffer[] {
  if (kind === "run" || kind === "runFrame") {
    const tensors = Object.values(value as Record<string, Tensor>);
    return large(tensors.map(({ data }) => data).filter((data) => ArrayBuffer.isView(data)));
  }
  if (kind === "predict") return large(resultViews(value as Prediction));
  if (kind !== "predictBatch") return [];
  return large((value as WireBatchItem[]).flatMap((item) => (item.ok ? resultViews(item.prediction) : [])));
}

/**
 * Whether the memory of a request's frames may go back to the caller, who writes the next frame into it. What failed may have left a
 * thread behind that still decodes.
 */
export function mayReturn(kind: WorkerRequest["kind"], value: unknown): boolean {
  return kind !== "predictBatch" || (value as WireBatchItem[]).every(({ ok }) => ok);
}

function resultViews(prediction: Prediction): ArrayBufferView[] {
  const views: ArrayBufferView[] = [];
  for (const result of prediction.heads) {
    if (result.kind === "image") views.push(result.data);
    if (result.kind === "segmentation") views.push(result.mask.classes);
  }
  return views;
}

function large(views: readonly ArrayBufferView[]): ArrayBuffer[] {
  return wholeBuffers(views.filter((view) => view.byteLength >= LARGE_BYTES));
}

function wholeBuffers(views: readonly ArrayBufferView[]): ArrayBuffer[] {
  const buffers = new Set<ArrayBuffer>();
  for (const view of views) {
    if (view.byteLength === view.buffer.byteLength && view.buffer instanceof ArrayBuffer) {
      buffers.add(view.buffer);
    }
  }
  return [...buffers];
}

function viewsOf(frame: Frame): ArrayBufferView[] {
  switch (frame.kind) {
    case "encoded":
      return [frame.bytes];
    case "pixels":
      return [frame.data];
    case "window":
      return [frame.samples];
    case "row":
      return [];
    case "tensors":
      return Object.values(frame.feeds)
        .map((tensor) => tensor.data)
        .filter((data) => ArrayBuffer.isView(data));
  }
}
