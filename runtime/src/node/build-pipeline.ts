import { readFile } from "node:fs/promises";
import { extname, join } from "node:path";
import {
  FieldloopError,
  ROOT_NODE,
  decidingHeadOf,
  manifestFiles,
  type GoldenCase,
  type Lineage,
  type Manifest,
  type PackageFile,
  type PipelineNode,
  type PipelineSpec,
} from "@fieldloop/protocol";
import type { ModelPackage } from "./package.js";
import { writePackage, type ManifestDraft } from "./write-package.js";

/** Golden cases that a manifest may hold, shared out among its parts. */
const GOLDEN_MAX = 32;
const FILE_SEGMENT_MAX = 100;
const LICENCE_MAX = 64;

type Files = Record<string, Uint8Array>;

export interface BuildPipelineOptions {
  readonly created: Date;
}

/**
 * Writes one package of the packages of several plain models. The files of a part lie in a folder of its name; training data stays with
 * the part, where it is trained.
 * @param parts by node name, `root` among them
 * @throws FieldloopError `invalid_argument` where a part is missing or a pipeline itself, and as {@link writePackage}
 */
export async function buildPipeline(
  dir: string,
  spec: PipelineSpec,
  parts: ReadonlyMap<string, ModelPackage>,
  options: BuildPipelineOptions,
): Promise<ModelPackage> {
  const files: Files = {};
  const casesMax = Math.floor(GOLDEN_MAX / (spec.nodes.length + 1));
  const root = await movePart(ROOT_NODE, plainPart(parts, ROOT_NODE), casesMax, files);
  const nodes: PipelineNode[] = [];
  const golden: GoldenCase[] = [...root.golden];
  for (const { name, from, when } of spec.nodes) {
    const moved = await movePart(name, plainPart(parts, name), casesMax, files);
    golden.push(...moved.golden);
    nodes.push({ name, ...partFields(moved), from, ...(when === undefined ? {} : { when }) });
  }
  const manifests = [...parts.values()].map(({ manifest }) => manifest);
  const draft: ManifestDraft = {
    schema: 1,
    model: spec.model,
    version: spec.version,
    created: options.created.toISOString(),
    task: "pipeline",
    description: spec.description,
    licence: spec.licence ?? licenceOf(manifests),
    root: { model: root.model, version: root.version },
    inputs: root.inputs,
    heads: root.heads,
    nodes,
    signals: signalsOf(root, nodes, parts),
    variants: root.variants,
    golden,
    ...(root.baseline === undefined ? {} : { baseline: root.baseline }),
    lineage: lineageOf(null, parts, {}),
  };
  return writePackage(dir, draft, files);
}

export interface ReplacePartOptions {
  readonly created: Date;
  /** One more than that of the pipeline by default. */
  readonly version?: number;
}

/**
 * Writes a new version of a pipeline with one part put in place of another; the files of all others stay as they are, byte by byte.
 * @param node name of the part; `root` for the root
 * @throws FieldloopError `not_found` where there is no such part, `invalid_argument`, and as {@link writePackage}
 */
export async function replacePart(
  dir: string,
  pipeline: ModelPackage,
  node: string,
  part: ModelPackage,
  options: ReplacePartOptions,
): Promise<ModelPackage> {
  const { manifest, packageSha256 } = pipeline;
  const known = [ROOT_NODE, ...manifest.nodes.map(({ name }) => name)];
  if (!known.includes(node)) {
    throw new FieldloopError(
      "not_found",
      `Replace part: no node "${node}", the package has ${known.join(", ")}`,
    );
  }
  const parts = new Map([[node, part]]);
  const files: Files = {};
  const casesMax = Math.floor(GOLDEN_MAX / known.length);
  const moved = await movePart(node, plainPart(parts, node), casesMax, files);
  const isRoot = node === ROOT_NODE;
  const { replay: _replay, holdout: _holdout, baseline, ...rest } = manifest;
  const kept = isRoot ? moved.baseline : baseline;
  const draft: Omit<Manifest, "replay" | "holdout"> = {
    ...rest,
    version: options.version ?? manifest.version + 1,
    created: options.created.toISOString(),
    ...(isRoot
      ? {
          root: { model: moved.model, version: moved.version },
          inputs: moved.inputs,
          heads: moved.heads,
          variants: moved.variants,
        }
      : {}),
    nodes: manifest.nodes.map((old) => (old.name === node ? { ...old, ...partFields(moved) } : old)),
    golden: [...manifest.golden.filter((golden) => (golden.node ?? ROOT_NODE) !== node), ...moved.golden],
    ...(kept === undefined ? {} : { baseline: kept }),
    lineage: lineageOf(
      { model: manifest.model, version: manifest.version, sha256: packageSha256 },
      parts,
      manifest.lineage.settings,
    ),
  };
  for (const { file } of manifestFiles(draft)) files[file] ??= await readFile(join(pipeline.dir, file));
  return writePackage(dir, draft, files);
}

type MovedPart = Pick<
  Manifest,
  "model" | "version" | "inputs" | "heads" | "variants" | "golden" | "signals" | "baseline"
>;

function partFields({
  model,
  version,
  inputs,
  heads,
  variants,
}: MovedPart): Omit<PipelineNode, "name" | "from"> {
  return { model, version, inputs, heads, variants };
}

function plainPart(parts: ReadonlyMap<string, ModelPackage>, name: string): ModelPackage {
  const part = parts.get(name);
  if (part === undefined)
    throw new FieldloopError("invalid_argument", `Build pipeline: no package for node "${name}"`);
  if (part.manifest.nodes.length > 0) {
    throw new FieldloopError(
      "invalid_argument",
      `Build pipeline: node "${name}": "${part.manifest.model}@${part.manifest.version}" is a pipeline itself, wanted a plain model`,
    );
  }
  return part;
}

/** A part's manifest with its files in a folder of its name, whose contents are added to `files`. */
async function movePart(
  name: string,
  { dir, manifest }: ModelPackage,
  casesMax: number,
  files: Files,
): Promise<MovedPart> {
  const moved = new Map<string, string>();
  const move = async <T extends PackageFile>(entry: T): Promise<T> => {
    const file = moved.get(entry.file) ?? freeName(name, entry, files);
    moved.set(entry.file, file);
    files[file] ??= await readFile(join(dir, entry.file));
    return { ...entry, file };
  };
  const all = async <T extends PackageFile>(entries: readonly T[]): Promise<T[]> => {
    const result: T[] = [];
    for (const entry of entries) result.push(await move(entry));
    return result;
  };
  const golden: GoldenCase[] = [];
  for (const { node: _, ...entry } of manifest.golden.slice(0, casesMax)) {
    const inputs = await all(entry.inputs);
    const outputs = await all(entry.outputs);
    golden.push({ ...entry, inputs, outputs, ...(name === ROOT_NODE ? {} : { node: name }) });
  }
  // Nobody reads the baseline of a further node.
  const baseline = name === ROOT_NODE && manifest.baseline ? await move(manifest.baseline) : undefined;
  const { model, version, inputs, heads, signals } = manifest;
  const variants = await all(manifest.variants);
  return { model, version, inputs, heads, variants, golden, signals, baseline };
}

/** `golden/in.bin` of node `top` becomes `top/golden-in.bin`; a name that is taken or too long gives way to its content's. */
function freeName(node: string, { file, sha256 }: PackageFile, files: Readonly<Files>): string {
  const flat = file.replaceAll("/", "-");
  const taken = Object.keys(files).some((name) => name.toLowerCase() === `${node}/${flat}`.toLowerCase());
  return taken || flat.length > FILE_SEGMENT_MAX
    ? `${node}/${sha256.slice(0, 32)}${extname(flat).slice(0, 16)}`
    : `${node}/${flat}`;
}

/** Those of the root, and of the part that names the class. */
function signalsOf(
  root: MovedPart,
  nodes: readonly PipelineNode[],
  parts: ReadonlyMap<string, ModelPackage>,
): Manifest["signals"] {
  const deciding = decidingHeadOf({ heads: root.heads, nodes: [...nodes] })?.node ?? ROOT_NODE;
  return [...new Set([...root.signals, ...(parts.get(deciding)?.manifest.signals ?? [])])];
}

function licenceOf(manifests: readonly Manifest[]): string {
  const licence = [...new Set(manifests.map(({ licence }) => licence))].sort().join(" AND ");
  if (licence.length <= LICENCE_MAX) return licence;
  throw new FieldloopError(
    "invalid_argument",
    `Build pipeline: the parts' licences "${licence}" are longer than ${LICENCE_MAX} characters: say one in the description`,
  );
}

/** Names each part, with the package that it came from. */
function lineageOf(
  base: Lineage["base"],
  parts: ReadonlyMap<string, ModelPackage>,
  settings: Lineage["settings"],
): Lineage {
  const named = [...parts].map(([name, { manifest, packageSha256 }]) => [
    `part.${name}`,
    `${manifest.model}@${manifest.version} ${packageSha256}`,
  ]);
  return {
    base,
    snapshot: null,
    trainer: "none: put together from packages",
    settings: { ...settings, ...Object.fromEntries(named) },
    libraries: {},
    revision: null,
    metrics: {},
  };
}
