import { Redirect, Route, Switch } from "wouter-preact";
import { session } from "./api/session.js";
import { DevicePage } from "./pages/device.js";
import { FleetPage } from "./pages/fleet.js";
import { InboxPage } from "./pages/inbox.js";
import { ModelPage } from "./pages/model.js";
import { ModelsPage } from "./pages/models.js";
import { NotFoundPage } from "./pages/not-found.js";
import { NewRolloutPage } from "./pages/rollout-new.js";
import { RolloutPage } from "./pages/rollout.js";
import { RolloutsPage } from "./pages/rollouts.js";
import { SignInPage } from "./pages/sign-in.js";
import { TrainingPage } from "./pages/training.js";
import { VersionPage } from "./pages/version.js";
import { WebhookPage } from "./pages/webhook.js";
import { WebhooksPage } from "./pages/webhooks.js";
import { Shell } from "./shell.js";
import { Toasts } from "./ui/toasts.js";

/** Every view has a URL: the address bar alone brings back what was seen. */
export function App() {
  if (session.value === undefined) return <div class="boot" aria-busy="true" aria-label="Loading" />;
  if (session.value === null) return <SignInPage />;
  return (
    <>
      <Shell>
        <Switch>
          <Route path="/">
            <Redirect to="/fleet" replace />
          </Route>
          <Route path="/fleet" component={FleetPage} />
          <Route path="/devices/:device">{({ device }) => <DevicePage key={device} device={device} />}</Route>
          <Route path="/failures" component={InboxPage} />
          <Route path="/models" component={ModelsPage} />
          <Route path="/models/:model">{({ model }) => <ModelPage key={model} model={model} />}</Route>
          <Route path="/models/:model/:version">
            {({ model, version }) => (
              <VersionPage key={`${model}@${version}`} model={model} version={Number(version)} />
            )}
          </Route>
          <Route path="/training/:run">{({ run }) => <TrainingPage key={run} run={run} />}</Route>
          <Route path="/rollouts" component={RolloutsPage} />
          <Route path="/rollouts/new" component={NewRolloutPage} />
          <Route path="/rollouts/:rollout">
            {({ rollout }) => <RolloutPage key={rollout} rollout={rollout} />}
          </Route>
          <Route path="/webhooks" component={WebhooksPage} />
          <Route path="/webhooks/:webhook">
            {({ webhook }) => <WebhookPage key={webhook} webhook={webhook} />}
          </Route>
          <Route component={NotFoundPage} />
        </Switch>
      </Shell>
      <Toasts />
    </>
  );
}
