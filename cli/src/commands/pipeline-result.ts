import type { HeadResult, NodeResult } from "@fieldloop/runtime";

/** What a node said, without the tensors behind it. */
export function nodeToJson({ heads, ...rest }: NodeResult): unknown {
  return {
    ...rest,
    heads: heads.map((head) => ({
      name: head.name,
      kind: head.kind,
      ...("label" in head ? { label: head.label, confidence: head.confidence } : {}),
      ...(head.kind === "detection" ? { boxes: head.boxes } : {}),
      ...(head.kind === "regression" ? { values: [...head.values] } : {}),
    })),
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
  if (head.kind === "regression") return [...head.values].map((value) => value.toPrecision(3)).join(" ");
  return head.kind;
}
