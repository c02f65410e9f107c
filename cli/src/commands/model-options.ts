import { InvalidArgumentError } from "commander";
import { FieldloopError, type Manifest } from "@fieldloop/protocol";

/** Parsers of option values; what they throw becomes a usage error that names the option. */
export function parseNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new InvalidArgumentError("wanted a number");
  return value;
}

export function parsePositiveInteger(text: string): number {
  const value = parseNumber(text);
  if (!Number.isInteger(value) || value < 1)
    throw new InvalidArgumentError("wanted an integer of at least 1");
  return value;
}

/** `0.485,0.456,0.406` */
export function parseNumbers(text: string): number[] {
  return text.split(",").map(parseNumber);
}

/** One label a line; empty lines are skipped. */
export function parseLabels(text: string): string[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "");
}

/** A model name from a file name: lower case, other characters as hyphens. */
export function modelNameFrom(fileName: string): string {
  const name = fileName
    .replace(/\.onnx$/i, "")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 64);
  if (name === "") {
    throw new FieldloopError("invalid_argument", `Name the model: "${fileName}" gives no name, use --name`);
  }
  return name;
}

/** `mnist@1` */
export function versionOf(manifest: Pick<Manifest, "model" | "version">): string {
  return `${manifest.model}@${manifest.version}`;
}

export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

/** `float32[1, 3, ?, ?]` */
export function formatTensor(info: { type: string; dims: readonly (number | string)[] }): string {
  const dims = info.dims.map((size) => (typeof size === "number" && size < 0 ? "?" : size));
  return `${info.type}[${dims.join(", ")}]`;
}

/** Collects `N=1` and `input:0=1` into sizes by name. */
export function collectDims(text: string, before: Record<string, number>): Record<string, number> {
  const at = text.lastIndexOf("=");
  if (at < 1) throw new InvalidArgumentError("wanted NAME=SIZE");
  return { ...before, [text.slice(0, at)]: parsePositiveInteger(text.slice(at + 1)) };
}
