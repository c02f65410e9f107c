import { FieldloopError, type ManifestInput } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { parseManifest } from "../package/manifest.js";

type Node = NonNullable<ManifestInput["nodes"]>[number];

const variant = (file: string): ManifestInput["variants"][number] => ({
  name: "fp32",
  file,
  sha256: file.length.toString(16).repeat(64).slice(0, 64),
  bytes: 1,
  precision: "fp32",
  opset: 17,
  executionProviders: ["cpu"],
});
const IMAGE: Node["inputs"][number] = {
  kind: "image",
  name: "image",
  width: 8,
  height: 8,
  colour: "gray",
  resize: "stretch",
  layout: "nchw",
  range: "unit",
};
const WINDOW: Node["inputs"][number] = {
  kind: "window",
  name: "window",
  length: 4,
  hop: 4,
  sampleRateHz: 100,
  normalization: "none",
  dims: [1, 4],
};
const TENSOR: Node["inputs"][number] = { kind: "tensor", name: "x", elementType: "float32", dims: [1, 4] };
const STATE: Node["inputs"][number] = { kind: "state", name: "s", output: "t", dims: [1] };
const CLASS: Node["heads"][number] = {
  name: "class",
  kind: "classification",
  output: "y",
  labels: ["a", "b"],
  values: "logits",
};
const BOXES: Node["heads"][number] = {
  name: "boxes",
  kind: "detection",
  format: "yolov8",
  boxes: "z",
  labels: ["thing"],
  scoreThreshold: 0.5,
  iouThreshold: 0.5,
};
const EMBEDDING: Node["heads"][number] = { name: "embedding", kind: "embedding", output: "e", length: 4 };

const tensors = (node: string, named: Record<string, string> = { x: "features" }): Node["from"] => ({
  kind: "tensors",
  node,
  tensors: named,
});
const node = (name: string, more: Partial<Node> = {}): Node => ({
  name,
  model: `model-${name}`,
  version: 1,
  from: tensors("root"),
  inputs: [TENSOR],
  heads: [CLASS],
  variants: [variant(`${name}/model.onnx`)],
  ...more,
});
const crop = (more: Partial<Extract<Node["from"], { kind: "crop" }>> = {}): Partial<Node> => ({
  from: { kind: "crop", head: "boxes", ...more },
  inputs: [IMAGE],
});

function parse(nodes: readonly Node[], more: Partial<ManifestInput> = {}): void {
  const manifest: ManifestInput = {
    schema: 1,
    model: "whole",
    version: 1,
    created: "2026-11-20T00:00:00Z",
    task: "pipeline",
    licence: "Apache-2.0",
    inputs: [IMAGE],
    heads: [BOXES, CLASS, EMBEDDING],
    nodes: [...nodes],
    variants: [variant("root/model.onnx")],
    lineage: { base: null, snapshot: null, trainer: "", settings: {}, libraries: {}, metrics: {} },
    ...more,
  };
  parseManifest(new TextEncoder().encode(JSON.stringify(manifest)));
}

const outOfRange = (count: number): Node[] => Array.from({ length: count }, (_, at) => node(`n${at}`));

const SOUND: [string, Node[], Partial<ManifestInput>?][] = [
  ["no node", []],
  ["16 nodes", outOfRange(16)],
  ["crops of the root, and tensors of them", [node("a", crop()), node("b", { from: tensors("a") })]],
  ["a node before the one it needs", [node("b", { from: tensors("a") }), node("a")]],
  [
    "a condition on another node",
    [node("a"), node("b", { when: { node: "a", head: "class", labels: ["b"] } })],
  ],
  [
    "a condition on a detection",
    [node("a", { when: { head: "boxes", labels: ["thing"], confidenceMin: 0.9 } })],
  ],
  ["a root without heads that is a backbone", [node("a")], { heads: [] }],
  ["state behind a backbone", [node("a", { inputs: [TENSOR, STATE] })]],
  [
    "an input of a strange name",
    [node("a", { from: tensors("root", { file: "f" }), inputs: [{ ...TENSOR, name: "file" }] })],
  ],
  [
    "a longer look back on the same windows",
    [node("a", { from: { kind: "frame" }, inputs: [{ ...WINDOW, context: 9, hop: 4, dims: [1, 13] }] })],
    { inputs: [WINDOW, STATE] },
  ],
];

const HOSTILE: [string, Node[], RegExp, Partial<ManifestInput>?][] = [
  ["17 nodes", outOfRange(17), /nodes: /],
  ["a node called root", [node("root")], /nodes\.0\.name: /],
  ["a name that leaves the folder", [node("../a")], /nodes\.0\.name: /],
  ["two nodes of one name", [node("a"), node("a")], /node "a": there are two/],
  ["a node that feeds itself", [node("a", { from: tensors("a") })], /node "a": it needs itself: "a" → "a"/],
  [
    "a cycle of three behind another",
    [
      node("front", { from: tensors("c") }),
      node("a", { from: tensors("c") }),
      node("b", { from: tensors("a") }),
      node("c", { from: tensors("b") }),
    ],
    /it needs itself: "c" → "b" → "a" → "c"/,
  ],
  [
    "a cycle over a condition",
    [node("a", { when: { node: "b", head: "class" } }), node("b", { from: tensors("a") })],
    /it needs itself/,
  ],
  ["tensors of a node that is not there", [node("a", { from: tensors("z") })], /node "a": it needs node "z"/],
  ["crops of a node that is not there", [node("a", crop({ node: "z" }))], /node "a": it needs node "z"/],
  [
    "a condition on a node that is not there",
    [node("a", { when: { node: "z", head: "class" } })],
    /node "a": it needs node "z"/,
  ],
  [
    "crops from a classification",
    [node("a", crop({ head: "class" }))],
    /node "a": head "class" is of kind "class/,
  ],
  [
    "crops from a head that is not there",
    [node("a", crop({ head: "z" }))],
    /node "a": node "root" has no head "z"/,
  ],
  [
    "crops of an unknown label",
    [node("a", crop({ labels: ["z"] }))],
    /node "a": head "boxes" has no label "z"/,
  ],
  [
    "crops for a tensor input",
    [node("a", { ...crop(), inputs: [TENSOR] })],
    /node "a": .*"tensor", wanted one "image"/,
  ],
  [
    "crops for two images",
    [node("a", { ...crop(), inputs: [IMAGE, { ...IMAGE, name: "b" }] })],
    /wanted one "image"/,
  ],
  [
    "crops that carry state",
    [node("a", { ...crop(), inputs: [IMAGE, STATE] })],
    /node "a": it carries state/,
  ],
  [
    "a tensor for no input",
    [node("a", { from: tensors("root", { x: "f", y: "g" }) })],
    /node "a": .*"y", which it does/,
  ],
  [
    "an input that nothing feeds",
    [node("a", { inputs: [TENSOR, { ...TENSOR, name: "w" }] })],
    /node "a": nothing feeds its input "w"/,
  ],
  [
    "no tensor at all",
    [node("a", { from: tensors("root", {}), inputs: [STATE] })],
    /node "a": it takes no tensor/,
  ],
  [
    "a tensor fed into its state",
    [node("a", { from: tensors("root", { x: "f", s: "g" }), inputs: [TENSOR, STATE] })],
    /node "a": .*"s", which is of kind "state"/,
  ],
  [
    "a condition on a head that is not there",
    [node("a", { when: { head: "z" } })],
    /node "a": its condition asks head "z"/,
  ],
  [
    "a condition on an embedding",
    [node("a", { when: { head: "embedding" } })],
    /node "a": head "embedding" .* decides nothing/,
  ],
  [
    "a condition on an unknown label",
    [node("a", { when: { head: "class", labels: ["z"] } })],
    /node "a": head "class" has no label "z"/,
  ],
  [
    "an image node of a windowed source",
    [node("a", { from: { kind: "frame" }, inputs: [IMAGE] })],
    /node "a": it takes the frame as "image", the root as "window"/,
    { inputs: [WINDOW] },
  ],
  [
    "windows of another length",
    [node("a", { from: { kind: "frame" }, inputs: [{ ...WINDOW, length: 8 }] })],
    /node "a": its window has length 8, that of the root 4/,
    { inputs: [WINDOW] },
  ],
  ["a node without heads that nobody reads", [node("a", { heads: [] })], /node "a": it has no heads/],
  [
    "a root without heads that nobody reads",
    [node("a", { from: { kind: "frame" }, inputs: [IMAGE] })],
    /node "root": it has no heads/,
    { heads: [] },
  ],
  ["an input twice", [node("a", { inputs: [TENSOR, TENSOR] })], /node "a": input "x" occurs twice/],
  ["a head twice", [node("a", { heads: [CLASS, CLASS] })], /node "a": head "class" occurs twice/],
  [
    "a variant twice",
    [node("a", { variants: [variant("a/1"), variant("a/1")] })],
    /node "a": variant "fp32" occurs twice/,
  ],
  [
    "a file with two hashes",
    [node("a", { variants: [{ ...variant("root/model.onnx"), sha256: "e".repeat(64) }] })],
    /described in two ways/,
  ],
  ["a file outside", [node("a", { variants: [variant("../model.onnx")] })], /nodes\.0\.variants\.0\.file/],
  [
    "a golden case of a node that is not there",
    [node("a")],
    /node "z": golden case "g"/,
    {
      golden: [
        {
          name: "g",
          node: "z",
          inputs: [
            { name: "x", file: "i", sha256: "1".repeat(64), bytes: 4, elementType: "float32", dims: [1] },
          ],
          outputs: [
            { name: "y", file: "o", sha256: "1".repeat(64), bytes: 4, elementType: "float32", dims: [1] },
          ],
          tolerance: {},
        },
      ],
    },
  ],
];

describe("the nodes of a manifest", () => {
  it.each(SOUND)("may be %s", (_, nodes, more) => {
    expect(() => parse(nodes, more)).not.toThrow();
  });
  it.each(HOSTILE)("are refused for %s", (_, nodes, message, more) => {
    const refusal = (() => {
      try {
        parse(nodes, more);
        return undefined;
      } catch (error) {
        return error;
      }
    })();
    expect(refusal).toBeInstanceOf(FieldloopError);
    expect((refusal as FieldloopError).code).toMatch(/^manifest_(name_)?invalid$/);
    expect((refusal as FieldloopError).message).toMatch(message);
  });
});
