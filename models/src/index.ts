import { fileURLToPath } from "node:url";
import { FieldloopError } from "@fieldloop/protocol";
import { makeBearing } from "./bearing/recipe.js";
import { makeParts } from "./parts/recipe.js";
import type { RecipeOptions } from "./recipe.js";
import { writeSummary } from "./summary.js";

export type { RecipeOptions } from "./recipe.js";

/** Names of the models that ship with Fieldloop. */
export const shippedNames = ["parts", "bearing"] as const;
export type ShippedName = (typeof shippedNames)[number];

export interface ShippedModel {
  readonly name: ShippedName;
  /** Absolute path of its package folder. */
  readonly packageDir: string;
}

/** The shipped models and where their packages lie. */
export const shippedModels: readonly ShippedModel[] = shippedNames.map((name) => ({
  name,
  packageDir: fileURLToPath(new URL(`../packages/${name}`, import.meta.url)),
}));

/** Absolute path of a shipped package. Throws `not_found` for any other name. */
export function packagePath(name: string): string {
  const found = shippedModels.find((model) => model.name === name);
  if (found) return found.packageDir;
  throw new FieldloopError(
    "not_found",
    `Find shipped model: no "${name}", there are ${shippedNames.join(", ")}`,
  );
}

/** Trains, quantizes, measures and packages one shipped model anew. Minutes; deterministic by seed. */
export async function trainShipped(name: ShippedName, options: RecipeOptions): Promise<void> {
  switch (name) {
    case "parts":
      await makeParts(options);
      break;
    case "bearing":
      await makeBearing(options);
      break;
  }
  await writeSummary(options.outDir, shippedNames);
}
