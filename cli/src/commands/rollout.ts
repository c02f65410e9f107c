import type { Command } from "commander";

export function registerRolloutCommand(_program: Command): void {}
