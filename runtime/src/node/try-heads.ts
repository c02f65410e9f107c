import { FieldloopError, headSchema, inputSchema, type Head } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { headOutputs, readHeads } from "../heads/read.js";
import type { ManifestDraft } from "./write-package.js";

type Tensors = Readonly<Record<string, Tensor>>;

/**
 * Reads the heads of a draft from one run, so that a head that cannot read what its model gives is found at import and not at each frame of
 * a device. Left out are heads on outputs of `spoiled`, and what is measured against a baseline, which comes later.
 * @throws FieldloopError `package_incompatible` naming head and output
 */
export function tryHeads(
  draft: Pick<ManifestDraft, "heads" | "inputs">,
  feeds: Tensors,
  results: Tensors,
  spoiled: readonly string[],
): void {
  const inputs = draft.inputs.map((input) => inputSchema.parse(input));
  for (const head of draft.heads.map((entry) => headSchema.parse(entry))) {
    if (needsBaseline(head) || headOutputs([head]).some((name) => spoiled.includes(name))) continue;
    try {
      readHeads({ heads: [head], inputs }, results, feeds);
    } catch (cause) {
      if (!(cause instanceof FieldloopError) || cause.code !== "model_output_invalid") throw cause;
      throw new FieldloopError(
        "package_incompatible",
        `Import model: what it gives for a test pattern is not what is declared. ${cause.message}`,
        { cause },
      );
    }
  }
}

function needsBaseline(head: Head): boolean {
  return head.kind === "anomaly" && head.method === "embedding";
}
