import type { Model } from "@fieldloop/protocol";
import { Link } from "wouter-preact";
import { formatCount } from "../lib/format.js";
import { EVIDENCE_KIND } from "../lib/kinds.js";
import { type LineageNode, lineage } from "../lib/models.js";
import { versionPath } from "../lib/url.js";
import { Dot, Time } from "../ui/atoms.js";
import { Icon } from "../ui/icons.js";

/** Which version was made from which: a chain, with branches below each other. */
export function LineageChain({ model, current }: { model: Model; current?: number }) {
  return (
    <div class="lineage" role="list" aria-label={`Lineage of ${model.model}`}>
      {lineage(model).map((node) => (
        <Branch key={node.version.version} node={node} current={current} />
      ))}
    </div>
  );
}

function Branch({ node, current }: { node: LineageNode; current: number | undefined }) {
  const chain = [node];
  for (let last = node; last.children.length === 1; ) {
    last = last.children[0]!;
    chain.push(last);
  }
  const branches = chain.at(-1)!.children;
  return (
    <div class="lineage-branch">
      <div class="lineage-chain">
        {chain.map((each, index) => (
          <>
            {index > 0 && <Icon name="chevron" size={14} />}
            <Node key={each.version.version} node={each} current={each.version.version === current} />
          </>
        ))}
      </div>
      {branches.length > 0 && (
        <div class="lineage-children">
          {branches.map((child) => (
            <Branch key={child.version.version} node={child} current={current} />
          ))}
        </div>
      )}
    </div>
  );
}

function Node({ node: { version }, current }: { node: LineageNode; current: boolean }) {
  const evidence = { none: "not evaluated", passed: "evaluation passed", failed: "evaluation failed" }[
    version.evidence
  ];
  return (
    <Link
      href={versionPath(version.model, version.version)}
      class="lineage-node"
      role="listitem"
      aria-current={current ? "true" : undefined}
      title={`${version.model}@${version.version}, ${evidence}, package ${version.packageSha256}`}
    >
      <span class="lineage-head">
        <b>@{version.version}</b>
        <Dot kind={EVIDENCE_KIND[version.evidence]} />
      </span>
      <small>
        {version.runningOn > 0 ? `on ${formatCount(version.runningOn)}` : "runs nowhere"} ·{" "}
        <Time at={version.published} />
      </small>
    </Link>
  );
}
