import type { Overview, Role } from "@fieldloop/protocol";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Link, useLocation } from "wouter-preact";
import { liveStatus } from "./api/live.js";
import { useResource } from "./api/resource.js";
import { may, session, signOut } from "./api/session.js";
import { formatCount } from "./lib/format.js";
import { pendingKey, useKeys } from "./lib/keys.js";
import { dark, toggleTheme } from "./lib/theme.js";
import { Dot } from "./ui/atoms.js";
import { Help } from "./ui/help.js";
import { Icon, type IconName, Mark } from "./ui/icons.js";

interface Place {
  href: string;
  title: string;
  icon: IconName;
  key: string;
  /** Paths that belong to it too. */
  also?: string;
  /** Whom it is shown to; everybody where absent. */
  role?: Role;
}

const PLACES: readonly Place[] = [
  { href: "/fleet", title: "Fleet", icon: "fleet", key: "f", also: "/devices" },
  { href: "/failures", title: "Failures", icon: "inbox", key: "i" },
  { href: "/models", title: "Models", icon: "models", key: "m", also: "/training" },
  { href: "/rollouts", title: "Rollouts", icon: "rollouts", key: "r" },
  { href: "/webhooks", title: "Webhooks", icon: "webhooks", key: "w", role: "admin" },
];

const LIVE = {
  live: { kind: "ok", title: "Live", says: "Changes appear as they happen" },
  connecting: {
    kind: "warning",
    title: "Reconnecting",
    says: "What is shown may be old: the server's event stream is away",
  },
  off: { kind: "idle", title: "Paused", says: "The event stream is closed" },
} as const;

/** Navigation around every page, and the keys that work everywhere. */
export function Shell({ children }: { children: ComponentChildren }) {
  const [path, navigate] = useLocation();
  const [help, setHelp] = useState(false);
  const overview = useResource<Overview>("/overview", {
    live: ["device", "predictions", "sample", "rollout", "training"],
    reloadMinMs: 3_000,
  });
  useKeys("Everywhere", [
    { keys: "?", title: "This help", run: () => setHelp(true) },
    { keys: "/", title: "Search", run: focusSearch },
    ...PLACES.map((place) => ({
      keys: `g ${place.key}`,
      title: `Go to ${place.title}`,
      run: () => navigate(place.href),
    })),
    { keys: "g d", title: "Open the API docs", run: () => location.assign("/api/docs") },
    { keys: "t", title: "Switch dark and light", run: toggleTheme },
    { keys: "Escape", title: "Back", run: () => goBack(path, navigate) },
  ]);
  const counts: Record<string, number | undefined> = {
    "/failures": overview.data?.samplesUnlabelled,
    "/rollouts": overview.data?.rolloutsRunning,
    "/models": overview.data?.trainingRunning,
  };
  const live = LIVE[liveStatus.value];
  return (
    <div class="shell">
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <div class="side">
        <Link href="/fleet" class="brand" aria-label="Fieldloop, to the fleet">
          <Mark />
          <span>Fieldloop</span>
        </Link>
        <nav aria-label="Main" class="places">
          {PLACES.filter(({ role }) => role === undefined || may(role)).map((place) => {
            const here =
              path.startsWith(place.href) || (place.also !== undefined && path.startsWith(place.also));
            const count = counts[place.href];
            return (
              <Link key={place.href} href={place.href} class="place" aria-current={here ? "page" : undefined}>
                <Icon name={place.icon} size={18} />
                <span class="place-title">{place.title}</span>
                {count ? (
                  <span class="place-count" title={countSays(place.href, count)}>
                    {formatCount(count)}
                  </span>
                ) : null}
              </Link>
            );
          })}
        </nav>
        <div class="side-foot">
          <span class="live" title={live.says} role="status">
            <Dot kind={live.kind} />
            <span>{live.title}</span>
          </span>
          <a class="place quiet" href="/api/docs">
            <Icon name="docs" size={18} />
            <span class="place-title">API docs</span>
          </a>
          <button type="button" class="place quiet" onClick={() => setHelp(true)} aria-label="Help and keys">
            <Icon name="help" size={18} />
            <span class="place-title">Help</span>
            <kbd>?</kbd>
          </button>
          <button
            type="button"
            class="place quiet"
            onClick={toggleTheme}
            aria-label={dark.value ? "Switch to light" : "Switch to dark"}
          >
            <Icon name={dark.value ? "sun" : "moon"} size={18} />
            <span class="place-title">{dark.value ? "Light" : "Dark"}</span>
          </button>
          <button
            type="button"
            class="place quiet"
            onClick={() => void signOut()}
            aria-label="Sign out"
            title={`Signed in as ${session.value?.name} (${session.value?.role})`}
          >
            <Icon name="exit" size={18} />
            <span class="place-title truncate">Sign out</span>
            <span class="place-role">{session.value?.role}</span>
          </button>
        </div>
      </div>
      <main id="main" tabIndex={-1}>
        {children}
      </main>
      {pendingKey.value && <div class="pending-key">{pendingKey.value} …</div>}
      {help && <Help close={() => setHelp(false)} version={overview.data?.serverVersion} />}
    </div>
  );
}

function focusSearch(): void {
  document.querySelector<HTMLInputElement>("input[type=search], [data-search]")?.focus();
}

/** To the page that the first crumb names; from a list to nowhere. */
function goBack(path: string, navigate: (to: string) => void): void {
  const parent = [...document.querySelectorAll<HTMLAnchorElement>(".crumbs a")].at(-1);
  if (parent && parent.pathname !== path) navigate(parent.pathname + parent.search);
}

function countSays(href: string, count: number): string {
  if (href === "/failures") return `${formatCount(count)} samples without a label`;
  if (href === "/rollouts") return `${formatCount(count)} running`;
  return `${formatCount(count)} training now`;
}
