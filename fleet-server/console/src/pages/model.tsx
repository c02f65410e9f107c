import type { Evaluation, Model, ModelVersion, TrainingRun } from "@fieldloop/protocol";
import { Link, useLocation } from "wouter-preact";
import { useResource } from "../api/resource.js";
import { formatBytes, formatCount } from "../lib/format.js";
import { EVIDENCE_KIND } from "../lib/kinds.js";
import { newestFirst } from "../lib/models.js";
import { versionPath } from "../lib/url.js";
import { Hash, State, Time } from "../ui/atoms.js";
import { Empty, Loaded, Page, Panel } from "../ui/layout.js";
import { rowClick, useListKeys } from "../ui/list.js";
import { EvaluationPanel } from "./evaluation.js";
import { LineageChain } from "./lineage.js";
import { MODELS_LIVE } from "./models.js";
import { TrainingTable } from "./training-parts.js";

export function ModelPage({ model: name }: { model: string }) {
  const models = useResource<{ items: Model[] }>("/models", MODELS_LIVE);
  const runs = useResource<{ items: TrainingRun[] }>("/training-runs", { live: ["training"] });
  const evaluations = useResource<{ items: Evaluation[] }>(`/evaluations?model=${encodeURIComponent(name)}`, {
    live: ["evaluation", "model"],
  });
  return (
    <Page
      title={name}
      parents={[{ title: "Models", href: "/models" }]}
      actions={
        <Link class="button" href={`/rollouts/new?model=${encodeURIComponent(name)}`}>
          New rollout
        </Link>
      }
    >
      <Loaded from={models} rows={6}>
        {({ items }) => {
          const model = items.find((each) => each.model === name);
          return model ? (
            <Versions model={model} />
          ) : (
            <Empty title={`No model is called “${name}”`}>
              <Link href="/models">All models</Link>
            </Empty>
          );
        }}
      </Loaded>
      <Latest evaluations={evaluations.data?.items} />
      <Panel title="Training runs" note="newest first" flush>
        <Loaded from={runs}>
          {({ items }) => <TrainingTable runs={items.filter((run) => run.model === name)} />}
        </Loaded>
      </Panel>
    </Page>
  );
}

function Latest({ evaluations }: { evaluations: Evaluation[] | undefined }) {
  const latest = evaluations?.toSorted((a, b) => b.created - a.created)[0];
  return latest ? <EvaluationPanel evaluation={latest} title="Latest evaluation" /> : null;
}

function Versions({ model }: { model: Model }) {
  const versions = newestFirst(model);
  const [, navigate] = useLocation();
  const open = (version: ModelVersion | undefined) =>
    version && navigate(versionPath(model.model, version.version));
  const { at, ref } = useListKeys("Versions", versions.length, (index) => open(versions[index]));
  return (
    <>
      <Panel title="Lineage">
        <LineageChain model={model} />
      </Panel>
      <Panel title="Versions" flush>
        <div class="table-scroll" ref={ref as preact.RefObject<HTMLDivElement>}>
          <table>
            <thead>
              <tr>
                <th>Version</th>
                <th>Evaluation</th>
                <th class="number">Runs on</th>
                <th>Made from</th>
                <th>Variants</th>
                <th class="number">Size</th>
                <th>Package</th>
                <th class="number">Published</th>
              </tr>
            </thead>
            <tbody>
              {versions.map((version, index) => {
                const { base } = version.manifest.lineage;
                return (
                  <tr
                    key={version.version}
                    data-row={index}
                    aria-current={index === at ? "true" : undefined}
                    onClick={rowClick(() => open(version))}
                  >
                    <td>
                      <Link class="strong" href={versionPath(model.model, version.version)}>
                        {model.model}@{version.version}
                      </Link>
                    </td>
                    <td>
                      <State kind={EVIDENCE_KIND[version.evidence]}>
                        {version.evidence === "none" ? "none yet" : version.evidence}
                      </State>
                    </td>
                    <td class="number">{formatCount(version.runningOn)}</td>
                    <td>
                      {base ? (
                        `${base.model === model.model ? "" : base.model}@${base.version}`
                      ) : (
                        <span class="faint">from scratch</span>
                      )}
                    </td>
                    <td class="nowrap">
                      {version.manifest.variants.map((variant) => variant.name).join(", ")}
                    </td>
                    <td class="number">{formatBytes(version.bytes)}</td>
                    <td>
                      <Hash value={version.packageSha256} />
                    </td>
                    <td class="number">
                      <Time at={version.published} />
                    </td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      </Panel>
    </>
  );
}
