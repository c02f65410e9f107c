import { describe, expect, it } from "vitest";
import {
  budgetOf,
  incompatibility,
  requireCompatible,
  requireReadableManifest,
  type CompatibilityFacts,
  type CompatibilityOptions,
  type IncompatibilityReason,
} from "./compatible.js";
import type { Manifest, Variant } from "./manifest.js";

const FACTS: CompatibilityFacts = {
  cpuFlags: ["avx2"],
  executionProviders: ["webgpu", "cpu"],
  memoryBytes: 1e9,
  deviceClass: "linux-x64",
  opsetMax: 21,
  irVersionMax: 10,
  manifestSchemaMax: 1,
};

function variant(change: Partial<Variant> = {}): Variant {
  return {
    name: "fp32",
    precision: "fp32",
    file: "fp32.onnx",
    sha256: "0".repeat(64),
    bytes: 1,
    opset: 17,
    executionProviders: ["cpu"],
    cpuFlags: [],
    ...change,
  };
}

function manifest(variants: Variant[], nodes: Variant[][] = []): Manifest {
  const rest = { schema: 1, model: "parts", version: 7, inputs: [], heads: [], golden: [] };
  const further = nodes.map((of, at) => ({
    ...{ name: `n${at}`, model: "part", version: 1, inputs: [], heads: [], variants: of },
    from: { kind: "frame" },
  }));
  return { ...rest, variants, nodes: further } as unknown as Manifest;
}

const fits: [string, Manifest, Partial<CompatibilityFacts>, CompatibilityOptions][] = [
  ["a plain package", manifest([variant()]), {}, {}],
  ["one of several variants", manifest([variant({ opset: 30 }), variant({ name: "b" })]), {}, {}],
  ["a later opset on a device that does not say", manifest([variant({ opset: 30 })]), { opsetMax: null }, {}],
  ["flags that it prefers and the device lacks", manifest([variant({ cpuFlags: ["avx512_vnni"] })]), {}, {}],
  ["one of the flags that it needs", manifest([variant({ cpuFlagsRequired: ["sve", "avx2"] })]), {}, {}],
  [
    "anything where a server runs it",
    manifest([variant({ opset: 30 })]),
    { executionProviders: ["oip"] },
    {},
  ],
  ["its own class", manifest([variant()]), {}, { deviceClasses: ["jetson-orin", "linux-x64"] }],
  ["any class", manifest([variant()]), {}, { deviceClasses: null }],
  ["a lane of its model", manifest([variant()]), {}, { lane: { name: "main", model: "parts" } }],
  ["a lane of any model", manifest([variant()]), {}, { lane: { name: "main", model: null } }],
  [
    "a class with a smaller budget",
    manifest([variant({ memoryBytesMax: 2e9, budgets: { "linux-x64": { memoryBytesMax: 1e8 } } })]),
    {},
    {},
  ],
];

const refused: [IncompatibilityReason, Manifest, CompatibilityOptions, string][] = [
  ["opset", manifest([variant({ opset: 22 })]), {}, "opset 22, this device reads up to 21"],
  ["ir_version", manifest([variant({ irVersion: 11 })]), {}, "IR version 11"],
  ["execution_provider", manifest([variant({ executionProviders: ["cuda"] })]), {}, "wants cuda"],
  ["cpu_flags", manifest([variant({ cpuFlagsRequired: ["avx512_vnni"] })]), {}, "avx512_vnni"],
  ["memory", manifest([variant({ memoryBytesMax: 2e9 })]), {}, "2000000000 bytes of memory"],
  ["device_class", manifest([variant()]), { deviceClasses: ["jetson-orin"] }, 'this one is "linux-x64"'],
  ["device_class", manifest([variant()]), { deviceClasses: [] }, "linux-x64"],
  ["lane_model", manifest([variant()]), { lane: { name: "left", model: "bearing" } }, 'lane "left"'],
  ["opset", manifest([variant()], [[variant()], [variant({ opset: 40 })]]), {}, 'node "n1"'],
];

describe("incompatibility", () => {
  it.each(fits)("takes %s", (_, made, facts, options) => {
    expect(incompatibility(made, { ...FACTS, ...facts }, options)).toBeUndefined();
  });

  it.each(refused)("names %s", (reason, made, options, text) => {
    const found = incompatibility(made, FACTS, options);
    const code = reason === "device_class" ? "device_class_mismatch" : "package_incompatible";
    expect(found).toMatchObject({ code, reason });
    expect(found?.message).toContain(text);
    expect(found?.message).toContain("parts@7");
    expect(() => requireCompatible(made, FACTS, options)).toThrow(
      expect.objectContaining({ code, detail: { reason } }),
    );
  });

  it("tells every variant's own reason", () => {
    const made = manifest([variant({ opset: 22 }), variant({ name: "gpu", executionProviders: ["cuda"] })]);
    expect(incompatibility(made, FACTS)?.message).toMatch(/"fp32" has opset 22.*"gpu" wants cuda/);
  });
});

describe("a manifest of a later form", () => {
  const bytes = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

  it("is told apart from a broken one", () => {
    expect(() => requireReadableManifest(bytes({ schema: 2 }), FACTS)).toThrow(
      expect.objectContaining({ code: "package_incompatible", detail: { reason: "manifest_schema" } }),
    );
  });
  it.each([[{ schema: 1 }], [{}], ["text"], [null], [{ schema: "2" }]])("lets %j through", (value) => {
    expect(() => requireReadableManifest(bytes(value), FACTS)).not.toThrow();
    expect(() => requireReadableManifest(new Uint8Array([0xff, 0x7b]), FACTS)).not.toThrow();
  });
});

describe("budgetOf", () => {
  it("is the class's own where there is one, field by field", () => {
    const made = variant({
      memoryBytesMax: 10,
      latencyMsMax: 5,
      budgets: { slow: { latencyMsMax: 50 } },
    });
    expect(budgetOf(made, "slow")).toEqual({ memoryBytesMax: 10, latencyMsMax: 50 });
    expect(budgetOf(made, "other")).toEqual({ memoryBytesMax: 10, latencyMsMax: 5 });
    expect(budgetOf(variant(), "constructor")).toEqual({
      memoryBytesMax: undefined,
      latencyMsMax: undefined,
    });
  });
});
