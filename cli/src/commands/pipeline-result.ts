import type { HeadResult, NodeResult } from "@fieldloop/runtime";

/** Values of an embedding or shares of a mask that a line of text holds. */
const TEXT_VALUES_MAX = 8;

/** What a node said, without the tensors behind it. */
export function nodeToJson({ heads, ...rest }: NodeResult): unknown {
  return { ...rest, heads: heads.map(headToJson) };
}

/** What a head said: numbers whole, masks by the share of each label, pictures by their size. */
export function headToJson(head: HeadResult): unknown {
  return {
    name: head.name,
    kind: head.kind,
    ...("label" in head ? { label: head.label, confidence: head.confidence } : {}),
    ...(head.kind === "classification" ? { probabilities: [...head.probabilities] } : {}),
    ...(head.kind === "detection" ? { boxes: head.boxes } : {}),
    ...(head.kind === "detection" && head.keypoints ? { keypoints: head.keypoints } : {}),
    ...(head.kind === "segmentation" ? { shares: [...head.shares] } : {}),
    ...(head.kind === "keypoints" ? { points: head.points, confidence: head.confidence } : {}),
    ...(head.kind === "regression" ? { values: [...head.values] } : {}),
    ...(head.kind === "anomaly" ? { error: head.error, score: head.score } : {}),
    ...(head.kind === "embedding" ? { embedding: [...head.embedding] } : {}),
    ...(head.kind === "image" ? { width: head.width, height: head.height, channels: head.channels } : {}),
  };
}

/** `mood[0] glad 0.93, mask[0] none 0.51`: the number in brackets is that of the box. */
export function nodesText(nodes: readonly NodeResult[]): string {
  return nodes
    .flatMap(({ node, crop, heads }) =>
      heads.map((head) => `${node}${crop === undefined ? "" : `[${crop}]`} ${headText(head)}`),
    )
    .join(", ");
}

function headText(head: HeadResult): string {
  if ("label" in head) return `${head.label} ${head.confidence.toFixed(2)}`;
  return outcomeText(head) || head.kind;
}

/** What a head found beside a label; empty where a label says it all. `names`: of its targets or labels. */
export function outcomeText(head: HeadResult, names: readonly string[] = []): string {
  const named = (at: number, text: string): string =>
    names[at] === undefined ? text : `${names[at]} ${text}`;
  switch (head.kind) {
    case "classification":
      return "";
    case "detection":
      return head.boxes
        .map((box) => [box.x0, box.y0, box.x1, box.y1].map((corner) => corner.toFixed(3)).join(" "))
        .join("; ");
    case "regression":
      return Array.from(head.values, (value, at) => named(at, value.toPrecision(4))).join(", ");
    case "keypoints":
      return head.points.map(({ label, x, y }) => `${label} ${x.toFixed(3)} ${y.toFixed(3)}`).join("; ");
    case "segmentation":
      return Array.from(head.shares, (share, at) => ({ share, at }))
        .filter(({ share }) => share > 0)
        .sort((a, b) => b.share - a.share)
        .slice(0, TEXT_VALUES_MAX)
        .map(({ share, at }) => named(at, `${(share * 100).toFixed(1)} %`))
        .join(", ");
    case "anomaly":
      return `error ${head.error.toPrecision(4)}, ${head.score.toFixed(2)} of the threshold`;
    case "embedding": {
      const shown = Array.from(head.embedding.subarray(0, TEXT_VALUES_MAX), (value) => value.toPrecision(3));
      return `${head.embedding.length} values: ${shown.join(" ")}${head.embedding.length > TEXT_VALUES_MAX ? " …" : ""}`;
    }
    case "image":
      return `${head.width}×${head.height}, ${head.channels === 1 ? "gray" : "RGB"}`;
  }
}
