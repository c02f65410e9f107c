import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { now } from "../lib/clock.js";
import { UNKNOWN, formatAbsolute, formatRelative } from "../lib/format.js";
import { type Kind } from "../lib/kinds.js";
import { Icon } from "./icons.js";

/** A relative time that moves; the absolute one is its title. */
export function Time({ at, none = UNKNOWN }: { at: number | null | undefined; none?: string }) {
  if (at === null || at === undefined) return <span class="faint">{none}</span>;
  return (
    <time dateTime={new Date(at).toISOString()} title={formatAbsolute(at)}>
      {formatRelative(at, Math.max(now.value, Math.min(at, Date.now())))}
    </time>
  );
}

/** Shape and colour of a state: each kind differs in both. */
export function Dot({ kind }: { kind: Kind }) {
  return (
    <svg class={`dot dot-${kind}`} width="10" height="10" viewBox="0 0 10 10" aria-hidden="true">
      {kind === "ok" && <circle cx="5" cy="5" r="4" />}
      {kind === "busy" && <circle class="hollow" cx="5" cy="5" r="3.25" />}
      {kind === "warning" && <path d="M5 .8L9.6 9H.4z" />}
      {kind === "error" && <rect x="1" y="1" width="8" height="8" rx="1" />}
      {kind === "unsure" && <path d="M5 .3L9.7 5 5 9.7.3 5z" />}
      {kind === "idle" && <rect x="1" y="4" width="8" height="2" rx="1" />}
    </svg>
  );
}

export function State({
  kind,
  children,
  title,
}: {
  kind: Kind;
  children: ComponentChildren;
  title?: string;
}) {
  return (
    <span class={`state state-${kind}`} title={title}>
      <Dot kind={kind} />
      {children}
    </span>
  );
}

/** A state as a filled label, where it is the headline of its place. */
export function Badge({
  kind,
  children,
  title,
}: {
  kind: Kind;
  children: ComponentChildren;
  title?: string;
}) {
  return (
    <span class={`badge badge-${kind}`} title={title}>
      <Dot kind={kind} />
      {children}
    </span>
  );
}

/** First eight digits of a hash; the whole is its title and what is copied. */
export function Hash({ value, copy = false }: { value: string; copy?: boolean }) {
  return (
    <span class="hash">
      <code title={value}>{value.slice(0, 8)}</code>
      {copy && <Copy text={value} what="hash" />}
    </span>
  );
}

const COPIED_MS = 1_500;
export function Copy({ text, what }: { text: string; what: string }) {
  const [copied, setCopied] = useState(false);
  const copy = () => {
    void navigator.clipboard?.writeText(text).then(
      () => {
        setCopied(true);
        setTimeout(() => setCopied(false), COPIED_MS);
      },
      () => undefined,
    );
  };
  return (
    <button
      type="button"
      class="icon-button small"
      onClick={copy}
      aria-label={`Copy ${what}`}
      title={`Copy ${what}`}
    >
      <Icon name={copied ? "check" : "copy"} size={13} />
    </button>
  );
}

/** `parts@7` */
export function Version({ model, version, sha256 }: { model: string; version: number; sha256?: string }) {
  return (
    <span class="version" title={sha256 ? `${model}@${version}, package ${sha256}` : `${model}@${version}`}>
      <span class="truncate">{model}</span>
      <b>@{version}</b>
      {sha256 && <code>{sha256.slice(0, 8)}</code>}
    </span>
  );
}

export function Kbd({ children }: { children: ComponentChildren }) {
  return <kbd>{children}</kbd>;
}

/** A command to run in a terminal, with its copy button. */
export function Command({ text }: { text: string }) {
  return (
    <span class="command">
      <code>{text}</code>
      <Copy text={text} what="command" />
    </span>
  );
}

/** `value` out of `max` as a bar. */
export function Meter({ value, max = 1, label }: { value: number; max?: number; label: string }) {
  const share = max > 0 ? Math.min(Math.max(value / max, 0), 1) : 0;
  return (
    <span
      class="meter"
      role="meter"
      aria-label={label}
      aria-valuenow={value}
      aria-valuemin={0}
      aria-valuemax={max}
    >
      <span style={{ width: `${share * 100}%` }} />
    </span>
  );
}
