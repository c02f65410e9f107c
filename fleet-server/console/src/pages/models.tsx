import type { Model, TrainingRun } from "@fieldloop/protocol";
import { Link } from "wouter-preact";
import { useResource } from "../api/resource.js";
import { plural } from "../lib/format.js";
import { mainVersion } from "../lib/models.js";
import { Command } from "../ui/atoms.js";
import { Empty, Loaded, Page, Panel } from "../ui/layout.js";
import { LineageChain } from "./lineage.js";
import { TrainingTable } from "./training-parts.js";

export const MODELS_LIVE = { live: ["model", "evaluation", "device"], reloadMinMs: 4_000 } as const;

export function ModelsPage() {
  const models = useResource<{ items: Model[] }>("/models", MODELS_LIVE);
  const runs = useResource<{ items: TrainingRun[] }>("/training-runs", { live: ["training"] });
  return (
    <Page
      title="Models"
      actions={
        <Link class="button" href="/rollouts/new">
          New rollout
        </Link>
      }
    >
      <Loaded from={models} rows={4} height={72}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty title="No model is published yet">
              <p>A package is a folder with a manifest and ONNX files. Publish one:</p>
              <Command text="fieldloop model publish ./FOLDER" />
            </Empty>
          ) : (
            items.map((model) => <ModelSummary key={model.model} model={model} />)
          )
        }
      </Loaded>
      <Panel title="Training runs" note="newest first" flush>
        <Loaded from={runs}>{({ items }) => <TrainingTable runs={items} />}</Loaded>
      </Panel>
    </Page>
  );
}

function ModelSummary({ model }: { model: Model }) {
  const path = `/models/${encodeURIComponent(model.model)}`;
  const main = mainVersion(model);
  const running = model.versions.reduce((sum, version) => sum + version.runningOn, 0);
  return (
    <Panel
      title={model.model}
      note={`${model.task} · ${plural(model.versions.length, "version")} · runs on ${plural(running, "device")}`}
      actions={<Link href={path}>Versions, evaluations, training</Link>}
    >
      {main?.manifest.description && <p class="muted model-says">{main.manifest.description}</p>}
      <LineageChain model={model} />
    </Panel>
  );
}
