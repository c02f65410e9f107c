import type { Head, Manifest, PipelineNode } from "@fieldloop/protocol";
import type { DetectionResult, HeadResult } from "../heads/result.js";
import type { NodeResult } from "../pipeline/result.js";
import type { Prediction } from "../predict.js";
import { anomalyDisagreement, classificationDisagreement } from "./classification.js";
import { detectionDisagreement, matchBoxes } from "./detection.js";
import { graded } from "./graded.js";
import { segmentationDisagreement } from "./segmentation.js";
import { imageDisagreement, keypointsDisagreement, regressionDisagreement } from "./values.js";

/** What a version said of a frame, and what its numbers mean. */
export interface Answer {
  readonly prediction: Pick<Prediction, "class" | "label" | "heads" | "nodes">;
  readonly manifest: Pick<Manifest, "heads" | "nodes">;
}

interface Side {
  readonly head: Head;
  readonly result: HeadResult;
}

/**
 * How far two versions' answers to one frame lie apart, 0..1: from `DISAGREES_FROM` on the decision of some head is another, below it only
 * belief or place differ. The head that differs most counts. Heads are paired by name, else by being the only ones of their kind; what
 * they say is compared by label, since class numbers may have changed. Embeddings of two models have nothing in common and are left out.
 * Where no head can be paired, the two labels decide; undefined where there is nothing to compare at all.
 */
export function disagreement(a: Answer, b: Answer): number | undefined {
  const found = [
    ...ofHeads(a.manifest.heads, a.prediction.heads, b.manifest.heads, b.prediction.heads),
    ...ofNodes(a, b),
  ];
  if (found.length > 0) return Math.max(...found);
  if (!decides(a) || !decides(b)) return undefined;
  return graded(a.prediction.label !== b.prediction.label, a.prediction.label === b.prediction.label ? 0 : 1);
}

function decides({ prediction, manifest }: Answer): boolean {
  if (prediction.class >= 0) return true;
  return [...manifest.heads, ...manifest.nodes.flatMap(({ heads }) => heads)].some(
    ({ kind }) => kind !== "regression" && kind !== "embedding" && kind !== "image" && kind !== "keypoints",
  );
}

function ofHeads(
  headsA: readonly Head[],
  resultsA: readonly HeadResult[],
  headsB: readonly Head[],
  resultsB: readonly HeadResult[],
): number[] {
  const found: number[] = [];
  for (const head of headsA) {
    const other = partner(head, headsA, headsB);
    const result = resultsA.find(({ name, kind }) => name === head.name && kind === head.kind);
    const otherResult = resultsB.find(({ name, kind }) => name === other?.name && kind === head.kind);
    if (!other || !result || !otherResult) continue;
    const value = ofHead({ head, result }, { head: other, result: otherResult });
    if (value !== undefined) found.push(value);
  }
  return found;
}

function partner(head: Head, own: readonly Head[], others: readonly Head[]): Head | undefined {
  const alike = others.filter(({ kind }) => kind === head.kind);
  const named = alike.find(({ name }) => name === head.name);
  if (named) return named;
  const isOnly = own.filter(({ kind }) => kind === head.kind).length === 1;
  return isOnly && alike.length === 1 ? alike[0] : undefined;
}

/** Undefined where the two heads have nothing that could be compared. */
function ofHead(a: Side, b: Side): number | undefined {
  if (isKind(a, "classification") && isKind(b, "classification")) return classificationDisagreement(a, b);
  if (isKind(a, "detection") && isKind(b, "detection")) return detectionDisagreement(a, b);
  if (isKind(a, "segmentation") && isKind(b, "segmentation")) return segmentationDisagreement(a, b);
  if (isKind(a, "regression") && isKind(b, "regression")) return regressionDisagreement(a, b);
  if (isKind(a, "anomaly") && isKind(b, "anomaly")) return anomalyDisagreement(a.result, b.result);
  if (isKind(a, "keypoints") && isKind(b, "keypoints")) return keypointsDisagreement(a.result, b.result);
  if (isKind(a, "image") && isKind(b, "image")) return imageDisagreement(a.result, b.result);
  return undefined;
}

type Kind = Head["kind"];

function isKind<K extends Kind>(
  side: Side,
  kind: K,
): side is { readonly head: Extract<Head, { kind: K }>; readonly result: Extract<HeadResult, { kind: K }> } {
  return side.head.kind === kind && side.result.kind === kind;
}

/**
 * Nodes of the same name: what they say of the whole frame, or of boxes of the root that both see. A box that only one sees is the detection
 * head's difference already; nodes further down, on boxes of a node, are looked at only where both saw one thing.
 */
function ofNodes(a: Answer, b: Answer): number[] {
  const crops = matchedCrops(a, b);
  return a.manifest.nodes.flatMap((node) => {
    const other = b.manifest.nodes.find(({ name }) => name === node.name);
    if (!other) return [];
    const resultsA = resultsOf(a, node);
    const resultsB = resultsOf(b, other);
    return resultsA.flatMap((result) => {
      const partnerResult = sameThing(result, resultsB, resultsA.length, crops);
      return partnerResult ? ofHeads(node.heads, result.heads, other.heads, partnerResult.heads) : [];
    });
  });
}

function resultsOf({ prediction }: Answer, { name }: PipelineNode): readonly NodeResult[] {
  return (prediction.nodes ?? []).filter(({ node }) => node === name);
}

function sameThing(
  result: NodeResult,
  others: readonly NodeResult[],
  count: number,
  crops: ReadonlyMap<number, number>,
): NodeResult | undefined {
  if (result.crop !== undefined && result.parent === undefined) {
    const crop = crops.get(result.crop);
    return others.find((other) => other.parent === undefined && other.crop === crop && crop !== undefined);
  }
  return count === 1 && others.length === 1 ? others[0] : undefined;
}

/** Boxes of the root that are the same object to both. */
function matchedCrops(a: Answer, b: Answer): ReadonlyMap<number, number> {
  const [sideA, sideB] = [boxesOf(a), boxesOf(b)];
  return new Map(sideA && sideB ? matchBoxes(sideA, sideB) : []);
}

function boxesOf({ manifest, prediction }: Answer) {
  const head = manifest.heads.find(({ kind }) => kind === "detection");
  const result = prediction.heads.find(({ kind }) => kind === "detection") as DetectionResult | undefined;
  return head?.kind === "detection" && result ? { head, result } : undefined;
}
