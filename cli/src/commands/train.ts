import type { Command } from "commander";

export function registerTrainCommand(_program: Command): void {}
