import type { Head } from "./heads.js";
import type { Manifest } from "./manifest.js";

/*
 * Apart from the schemas, and without a value of theirs: a page of the console that asks for the deciding head does not load a
 * validation library with it, which also tries eval and so breaks the page's content security policy.
 */

/** The model that the manifest itself describes. */
export const ROOT_NODE = "root";

/** Heads whose result is a class; the first of a manifest names the class of its predictions. */
export type DecidingHead = Extract<
  Head,
  { kind: "classification" | "detection" | "segmentation" | "anomaly" }
>;

export function decidingHead(heads: readonly Head[]): DecidingHead | undefined {
  return heads.find(isDeciding);
}

function isDeciding(head: Head): head is DecidingHead {
  switch (head.kind) {
    case "classification":
    case "detection":
    case "segmentation":
    case "anomaly":
      return true;
    case "keypoints":
    case "regression":
    case "embedding":
    case "image":
      return false;
  }
}

/** The head that names the class of a package's predictions: the first that decides something, of the root, else of the nodes in their order. */
export function decidingHeadOf(
  manifest: Pick<Manifest, "heads" | "nodes">,
): { readonly node: string; readonly head: DecidingHead } | undefined {
  for (const { name, heads } of [{ name: ROOT_NODE, heads: manifest.heads }, ...manifest.nodes]) {
    const head = decidingHead(heads);
    if (head !== undefined) return { node: name, head };
  }
  return undefined;
}
