import { expect, test } from "vitest";
import { GraphBuilder } from "./builder.js";
import { sharedCut } from "./shared-cut.js";
import { float32Tensor } from "./tensor.js";

/** x → stem → two branches that meet → neck → two heads; `skip` takes the input past the neck to the second head. */
function network(skip: boolean, behind: "weights" | "none" = "weights") {
  const graph = new GraphBuilder();
  const weight = (name: string) => graph.initializer(float32Tensor(name, [4, 4], new Float32Array(16)));
  const x = graph.input("x", "float32", ["n", 4]);
  const state = graph.input("h", "float32", ["n", 4]);
  graph.node("MatMul", [x, weight("w0")], {}, ["stem"]);
  graph.node("MatMul", ["stem", weight("w1")], {}, ["left"]);
  graph.node("Relu", ["stem"], {}, ["right"]);
  graph.node("Add", ["left", "right"], {}, ["sum"]);
  graph.node("Relu", ["sum"], {}, ["neck"]);
  const second = skip ? graph.node("Add", ["neck", x])[0]! : "neck";
  if (behind === "weights") {
    graph.node("MatMul", ["neck", weight("w2")], {}, ["a"]);
    graph.node("MatMul", [second, weight("w3")], {}, ["logits"]);
    graph.node("Add", ["logits", state], {}, ["b"]);
  } else {
    graph.node("Sigmoid", ["neck"], {}, ["a"]);
    graph.node("Add", [second, state], {}, ["b"]);
  }
  graph.output("a", "float32");
  graph.output("b", "float32");
  return graph.build({ opset: 17 });
}

test("the cut is the last tensor that everything passes through, with weights behind it", () => {
  expect(sharedCut(network(false), new Set(["h"]))).toBe("neck");
  // Behind the neck are no weights: branches begin at the stem.
  expect(sharedCut(network(false, "none"), new Set(["h"]))).toBe("stem");
});

test("there is none where the input, or state that a frame would have to bring, goes past", () => {
  expect(sharedCut(network(true), new Set(["h"]))).toBeUndefined();
  expect(sharedCut(network(false))).toBeUndefined();
});
