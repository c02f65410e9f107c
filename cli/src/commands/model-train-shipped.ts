import { resolve } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { InvalidArgumentError, type Command } from "commander";
import { action, note } from "../output.js";

const SEED_MAX = 2 ** 31 - 1;

export function registerTrainShipped(model: Command): void {
  model
    .command("train-shipped <name>")
    .description(
      "Train, quantize, measure and package a model that ships with Fieldloop anew: parts, bearing or all; minutes",
    )
    .option("--out <folder>", "where packages/ and results/ are written", "models")
    .option("--seed <number>", "same seed, same package", readSeed, 1)
    .action(action(trainShippedModels));
}

async function trainShippedModels(name: string, options: { out: string; seed: number }): Promise<void> {
  const { shippedNames, trainShipped } = await import("@fieldloop/models");
  const { ortNode } = await import("@fieldloop/runtime/node");
  const names = name === "all" ? shippedNames : shippedNames.filter((candidate) => candidate === name);
  if (names.length === 0) {
    throw new FieldloopError(
      "invalid_argument",
      `Train shipped model: "${name}" is none of ${shippedNames.join(", ")}, all`,
    );
  }
  const outDir = resolve(options.out);
  for (const each of names)
    await trainShipped(each, { outDir, seed: options.seed, backend: ortNode, log: note });
}

function readSeed(text: string): number {
  const seed = Number(text);
  if (!/^\d{1,10}$/.test(text) || seed > SEED_MAX)
    throw new InvalidArgumentError(`wanted a whole number from 0 to ${SEED_MAX}`);
  return seed;
}
