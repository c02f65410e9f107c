import type { Command } from "commander";

export function registerDatasetCommand(_program: Command): void {}
