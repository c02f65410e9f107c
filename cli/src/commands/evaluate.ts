import type { Command } from "commander";

export function registerEvaluateCommand(_program: Command): void {}
