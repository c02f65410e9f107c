import type { DeploymentState, DeviceDetail } from "@fieldloop/protocol";
import { Link } from "wouter-preact";
import { isBehind } from "../lib/devices.js";
import { words } from "../lib/format.js";
import { DEPLOYMENT_KIND } from "../lib/kinds.js";
import { rolloutPath, versionPath } from "../lib/url.js";
import { State, Time, Version } from "../ui/atoms.js";
import { Icon } from "../ui/icons.js";
import { Empty, Panel } from "../ui/layout.js";

/** What the device runs and why: the deployment and rollout that put it there, and all before. */
export function DeviceRuns({ device }: { device: DeviceDetail }) {
  return (
    <Panel title="What it runs and why" note={`desired state, revision ${device.desiredRevision}`} flush>
      <Now device={device} />
      {device.deployments.length === 0 ? (
        <Empty title="No deployment yet">
          <p>
            <Link href="/rollouts/new">Start a rollout</Link> to put a model on it.
          </p>
        </Empty>
      ) : (
        <div class="table-scroll">
          <table class="compact">
            <thead>
              <tr>
                <th>Version</th>
                <th>State</th>
                <th>By</th>
                <th class="number">Last step</th>
              </tr>
            </thead>
            <tbody>
              {device.deployments.map((item) => (
                <tr key={item.deployment}>
                  <td>
                    <Link href={versionPath(item.model, item.version)}>
                      {item.model}@{item.version}
                    </Link>
                  </td>
                  <td>
                    <State
                      kind={DEPLOYMENT_KIND[item.state as DeploymentState] ?? "idle"}
                      title={item.errorMessage ?? undefined}
                    >
                      {words(item.state)}
                      {item.errorCode && <code>{item.errorCode}</code>}
                    </State>
                  </td>
                  <td>
                    {item.rollout ? (
                      <Link class="truncate rollout-id" href={rolloutPath(item.rollout)} title={item.rollout}>
                        {item.rollout}
                      </Link>
                    ) : (
                      <span class="muted">assigned by hand</span>
                    )}
                  </td>
                  <td class="number">
                    <Time at={item.updated} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Panel>
  );
}

function Now({ device }: { device: DeviceDetail }) {
  const { state, wanted } = device;
  const running = state?.running ?? null;
  const cause = device.deployments.find(
    (item) =>
      running &&
      item.model === running.model &&
      item.version === running.version &&
      item.state !== "rolled_back",
  );
  const step = state?.deployment;
  const lanes = state?.lanes?.length ?? 0;
  return (
    <div class="runs-now">
      {lanes > 1 ? (
        <p>{lanes} lanes, each with a version of its own: see above.</p>
      ) : running ? (
        <p>
          Runs <Version model={running.model} version={running.version} sha256={running.packageSha256} />,
          variant <b>{running.variant}</b> on <b>{running.executionProvider}</b>, since{" "}
          <Time at={running.since} />
          {cause?.rollout ? (
            <>
              , put there by <Link href={rolloutPath(cause.rollout)}>{cause.rollout}</Link>
            </>
          ) : (
            ""
          )}
          .
        </p>
      ) : (
        <p>{device.running ? "" : "Runs no model."}</p>
      )}
      {isBehind(device) && wanted && (
        <p class="behind-line">
          <Icon name="arrow" size={14} />
          <span>
            Wanted: <Version model={wanted.model} version={wanted.version} sha256={wanted.packageSha256} />
            {step ? (
              <>
                ; its update is {words(step.state)}
                {step.error ? (
                  <>
                    : {step.error.message} <code>{step.error.code}</code>
                  </>
                ) : (
                  ""
                )}
              </>
            ) : (
              ""
            )}
          </span>
        </p>
      )}
      {state?.previous && (
        <p class="muted">
          Ready to return to:{" "}
          <Version
            model={state.previous.model}
            version={state.previous.version}
            sha256={state.previous.packageSha256}
          />
        </p>
      )}
    </div>
  );
}
