import { decidingHeadOf, type Model, type ModelVersion } from "@fieldloop/protocol";

/** Labels of the version's first head that has some: what a sample can be labelled as. */
export function labelsOf(version: ModelVersion | undefined): readonly string[] {
  return version ? (decidingHeadOf(version.manifest)?.head.labels ?? []) : [];
}

/** Where a head found nothing; no label of its own. */
const NOTHING = "none";

/** What a sample can be labelled as: the labels, and "none" where the model may find nothing. */
export function choicesOf(version: ModelVersion | undefined): readonly string[] {
  const head = version && decidingHeadOf(version.manifest)?.head;
  if (!head) return [];
  const mayFindNothing =
    head.kind === "detection" ||
    head.kind === "segmentation" ||
    (head.kind === "classification" && head.activation === "sigmoid");
  return mayFindNothing && !head.labels.includes(NOTHING) ? [...head.labels, NOTHING] : head.labels;
}

export function findVersion(
  models: readonly Model[] | undefined,
  model: string,
  version: number,
): ModelVersion | undefined {
  return models?.find((each) => each.model === model)?.versions.find((each) => each.version === version);
}

/** Highest number first. */
export function newestFirst(model: Model): ModelVersion[] {
  return model.versions.toSorted((a, b) => b.version - a.version);
}

/** The version that most devices run; the newest where none runs any. */
export function mainVersion(model: Model): ModelVersion | undefined {
  return newestFirst(model).toSorted((a, b) => b.runningOn - a.runningOn)[0];
}

/** From the oldest ancestor that is still known to the newest version: each followed by what was made from it. */
export interface LineageNode {
  version: ModelVersion;
  children: LineageNode[];
}

export function lineage(model: Model): LineageNode[] {
  const nodes = new Map(
    model.versions.map((version) => [version.version, { version, children: [] as LineageNode[] }]),
  );
  const roots: LineageNode[] = [];
  for (const node of [...nodes.values()].sort((a, b) => a.version.version - b.version.version)) {
    const { base } = node.version.manifest.lineage;
    const parent =
      base && base.model === model.model && base.version !== node.version.version
        ? nodes.get(base.version)
        : undefined;
    if (parent) parent.children.push(node);
    else roots.push(node);
  }
  return roots;
}
