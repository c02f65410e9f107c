import type { Head, NodeCondition } from "@fieldloop/protocol";
import type { HeadResult } from "../heads/result.js";

/** A condition made ready: class numbers for labels. */
export interface Condition {
  readonly node: string;
  readonly head: string;
  readonly confidenceMin: number;
  /** Undefined: any class but none. */
  readonly classes: ReadonlySet<number> | undefined;
}

/** @param heads those of the node that is asked; the manifest was checked to have the head and its labels */
export function readyCondition(when: NodeCondition, heads: readonly Head[]): Condition {
  const head = heads.find(({ name }) => name === when.head);
  const known = head !== undefined && "labels" in head ? head.labels : [];
  return {
    node: when.node,
    head: when.head,
    confidenceMin: when.confidenceMin,
    classes: when.labels && new Set(when.labels.map((label) => known.indexOf(label))),
  };
}

/** Whether results meet a condition: the decision does, or, of a detection, one of its boxes. */
export function meets(condition: Condition, heads: readonly HeadResult[]): boolean {
  const result = heads.find(({ name }) => name === condition.head);
  if (result === undefined || !("class" in result)) return false;
  const isWanted = (decided: number): boolean =>
    condition.classes === undefined ? decided >= 0 : condition.classes.has(decided);
  if (result.kind !== "detection")
    return isWanted(result.class) && result.confidence >= condition.confidenceMin;
  return result.boxes.some((box) => isWanted(box.class) && box.score >= condition.confidenceMin);
}
