import type { Evaluation, Model, ModelVersion } from "@fieldloop/protocol";
import { Link } from "wouter-preact";
import { useResource } from "../api/resource.js";
import { whyNot } from "../api/session.js";
import { formatBytes, formatCount, formatNumber, plural } from "../lib/format.js";
import { EVIDENCE_KIND } from "../lib/kinds.js";
import { findVersion, labelsOf } from "../lib/models.js";
import { versionPath } from "../lib/url.js";
import { Badge, Command, Hash, Time } from "../ui/atoms.js";
import { Empty, Facts, Loaded, Page, Panel } from "../ui/layout.js";
import { EvaluationPanel } from "./evaluation.js";
import { LineageChain } from "./lineage.js";
import { MODELS_LIVE } from "./models.js";

export function VersionPage({ model: name, version: number }: { model: string; version: number }) {
  const models = useResource<{ items: Model[] }>("/models", MODELS_LIVE);
  const evaluations = useResource<{ items: Evaluation[] }>(`/evaluations?model=${encodeURIComponent(name)}`, {
    live: ["evaluation", "model"],
  });
  const version = findVersion(models.data?.items, name, number);
  const model = models.data?.items.find((each) => each.model === name);
  const refused = whyNot("operator");
  return (
    <Page
      title={`${name}@${number}`}
      parents={[
        { title: "Models", href: "/models" },
        { title: name, href: `/models/${encodeURIComponent(name)}` },
      ]}
      beside={
        version && (
          <>
            <Hash value={version.packageSha256} copy />
            <Badge kind={EVIDENCE_KIND[version.evidence]}>
              {version.evidence === "none" ? "Not evaluated" : `Evaluation ${version.evidence}`}
            </Badge>
          </>
        )
      }
      actions={
        version && !refused ? (
          <Link
            class="button primary"
            href={`/rollouts/new?model=${encodeURIComponent(name)}&version=${number}`}
          >
            Roll out
          </Link>
        ) : (
          <button type="button" disabled title={refused}>
            Roll out
          </button>
        )
      }
    >
      <Loaded from={models} rows={8}>
        {() =>
          version && model ? (
            <>
              <Panel title="Lineage">
                <LineageChain model={model} current={number} />
              </Panel>
              <Evaluations of={version} all={evaluations.data?.items ?? []} />
              <Contents version={version} />
            </>
          ) : (
            <Empty title={`No version ${number} of “${name}”`}>
              <Link href={`/models/${encodeURIComponent(name)}`}>All versions of {name}</Link>
            </Empty>
          )
        }
      </Loaded>
    </Page>
  );
}

function Evaluations({ of, all }: { of: ModelVersion; all: readonly Evaluation[] }) {
  const mine = all
    .filter((evaluation) => evaluation.candidate === of.version)
    .sort((a, b) => b.created - a.created);
  if (mine.length === 0) {
    return (
      <Panel title="Evaluation">
        <Empty title="No evaluation of this version yet">
          <p>A training run evaluates its candidate by itself. By hand, on the labelled samples:</p>
          <Command
            text={`fieldloop evaluate run ${of.model}@${of.version} --base ${of.manifest.lineage.base?.version ?? 1} --snapshot SHA256`}
          />
        </Empty>
      </Panel>
    );
  }
  return (
    <>
      {mine.map((evaluation) => (
        <EvaluationPanel key={evaluation.evaluation} evaluation={evaluation} title="Evaluation" />
      ))}
    </>
  );
}

/** Labels, or what a model without them gives. */
function sayLabels(version: ModelVersion): [string, string] {
  const labels = labelsOf(version);
  if (labels.length > 0) return ["Labels", labels.join(", ")];
  const gives = version.manifest.heads.map((head) => {
    if (head.kind !== "regression") return head.kind;
    return head.targets.map(({ name, unit }) => (unit ? `${name} (${unit})` : name)).join(", ");
  });
  return ["Gives", gives.join("; ") || "tensors"];
}

function Contents({ version }: { version: ModelVersion }) {
  const { manifest } = version;
  const { lineage } = manifest;
  return (
    <div class="columns">
      <Panel title="Package">
        {manifest.description && <p class="model-says">{manifest.description}</p>}
        <Facts
          rows={[
            ["Task", manifest.task],
            ["Input", manifest.inputs.map(sayInput).join("; ")],
            sayLabels(version),
            ["Signals", manifest.signals.join(", ") || "none"],
            [
              "Variants",
              manifest.variants
                .map((variant) => `${variant.name} (${variant.precision}, ${formatBytes(variant.bytes)})`)
                .join(", "),
            ],
            ["Golden cases", formatCount(manifest.golden.length)],
            ["Size", formatBytes(version.bytes)],
            ["Licence", manifest.licence],
            ["Created", <Time at={version.created} key="created" />],
            ["Runs on", plural(version.runningOn, "device")],
          ]}
        />
      </Panel>
      <Panel title="Where it comes from">
        <Facts
          rows={[
            [
              "Made from",
              lineage.base ? (
                <Link href={versionPath(lineage.base.model, lineage.base.version)} key="base">
                  {lineage.base.model}@{lineage.base.version}
                </Link>
              ) : (
                "scratch"
              ),
            ],
            [
              "Snapshot",
              lineage.snapshot ? (
                <Hash value={lineage.snapshot} copy key="snapshot" />
              ) : (
                "none: the data that shipped with it"
              ),
            ],
            ["Trainer", lineage.trainer],
            ["Settings", pairs(lineage.settings)],
            ["Measured", pairs(lineage.metrics)],
            ["Libraries", pairs(lineage.libraries)],
            ["Revision", lineage.revision ?? "not recorded"],
          ]}
        />
      </Panel>
    </div>
  );
}

function pairs(record: Readonly<Record<string, string | number | boolean | null>>) {
  const entries = Object.entries(record);
  if (entries.length === 0) return <span class="faint">none</span>;
  return (
    <span class="pairs">
      {entries.map(([key, value]) => (
        <span key={key}>
          {key} <b>{typeof value === "number" ? formatNumber(value, 4) : String(value)}</b>
        </span>
      ))}
    </span>
  );
}

function sayInput(input: ModelVersion["manifest"]["inputs"][number]): string {
  switch (input.kind) {
    case "image":
      return `image ${input.width} × ${input.height} ${input.colour}, ${input.resize}`;
    case "window":
      return `window of ${formatCount(input.length)} × ${input.channels} at ${formatNumber(input.sampleRateHz)} Hz, ${input.normalization}`;
    case "table":
      return `row of ${formatCount(input.columns.length)} columns`;
    case "tensor":
    case "state":
    case "constant":
      return `${input.kind} ${input.elementType} [${input.dims.join(", ")}]`;
  }
}
