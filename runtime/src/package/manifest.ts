import { FieldloopError, LIMITS, manifestSchema, type Manifest } from "@fieldloop/protocol";
import { checkPipeline } from "../pipeline/check.js";
import { pipelineParts } from "../pipeline/graph.js";
import { checkParts } from "./check-parts.js";

/** Name of the manifest in a package folder. */
export const MANIFEST_FILE = "manifest.json";
/** The newest form of it that is read here. */
export const MANIFEST_SCHEMA_MAX = 1;

/**
 * Reads `manifest.json`.
 * @throws FieldloopError `limit_exceeded`, `manifest_name_invalid` for a file name that is not allowed, `manifest_invalid` for all else
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  if (bytes.length > LIMITS.manifestBytesMax) {
    throw new FieldloopError(
      "limit_exceeded",
      `Read manifest: ${bytes.length} bytes, at most ${LIMITS.manifestBytesMax} allowed`,
    );
  }
  const parsed = manifestSchema.safeParse(parseJson(bytes));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    const code = issue.path.at(-1) === "file" ? "manifest_name_invalid" : "manifest_invalid";
    throw new FieldloopError(code, `Read manifest: ${issue.path.join(".") || "document"}: ${issue.message}`, {
      cause: parsed.error,
    });
  }
  checkNames(parsed.data);
  return parsed.data;
}

/** The bytes of `manifest.json`: the package's identity is their SHA-256, so they are written once and never reformatted. */
export function formatManifest(manifest: Manifest): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(manifest, null, 2)}\n`);
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FieldloopError("manifest_invalid", `Read manifest: not JSON: ${reason}`, { cause });
  }
}

/** Names that the schema cannot compare: one file with two hashes, two variants or heads of one name, the manifest itself. */
function checkNames(manifest: Manifest): void {
  const hashes = new Map<string, string>();
  for (const { file, sha256 } of namedFiles(manifest)) {
    // Folders of some systems do not tell upper from lower case.
    const key = file.toLowerCase();
    if (key === MANIFEST_FILE) {
      throw new FieldloopError(
        "manifest_name_invalid",
        `Read manifest: it names "${file}" as one of its files`,
      );
    }
    const known = hashes.get(key);
    if (known !== undefined && known !== `${file} ${sha256}`) {
      throw new FieldloopError("manifest_invalid", `Read manifest: file "${file}" is described in two ways`);
    }
    hashes.set(key, `${file} ${sha256}`);
  }
  if (hashes.size > LIMITS.packageFilesMax) {
    throw new FieldloopError(
      "manifest_invalid",
      `Read manifest: ${hashes.size} files, at most ${LIMITS.packageFilesMax} allowed`,
    );
  }
  refuseRepeated("variant", manifest.variants);
  refuseRepeated("head", manifest.heads);
  refuseRepeated("input", manifest.inputs);
  refuseRepeated(
    "golden case",
    manifest.golden.map(({ name, node }) => ({ name: node === undefined ? name : `${node}: ${name}` })),
  );
  // A backbone is a package as well: it predicts nothing by itself, and its task says so.
  const isBackbone = manifest.task === "pipeline" && manifest.nodes.length === 0;
  if (!isBackbone && pipelineParts(manifest).every((part) => part.heads.length === 0)) {
    throw new FieldloopError("manifest_invalid", "Read manifest: no head at all, wanted one or more");
  }
  checkPipeline(manifest);
  checkParts(pipelineParts(manifest));
}

/** Every mention of a file, repetitions included. */
function namedFiles(manifest: Manifest): { file: string; sha256: string }[] {
  const { golden, baseline, replay, holdout } = manifest;
  const single = [baseline, replay, holdout].filter((file) => file !== undefined);
  const variants = pipelineParts(manifest).flatMap((part) => part.variants);
  return [...variants, ...golden.flatMap((entry) => [...entry.inputs, ...entry.outputs]), ...single];
}

function refuseRepeated(what: string, entries: readonly { name: string }[]): void {
  const seen = new Set<string>();
  for (const { name } of entries) {
    if (seen.has(name))
      throw new FieldloopError("manifest_invalid", `Read manifest: ${what} "${name}" occurs twice`);
    seen.add(name);
  }
}
