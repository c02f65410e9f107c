import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { Link } from "wouter-preact";
import type { ApiError } from "../api/client.js";
import type { Resource } from "../api/resource.js";

interface PageProps {
  title: string;
  /** Document title where it differs. */
  name?: string;
  parents?: readonly { title: string; href: string }[];
  beside?: ComponentChildren;
  actions?: ComponentChildren;
  children: ComponentChildren;
}

export function Page({ title, name = title, parents = [], beside, actions, children }: PageProps) {
  useEffect(() => {
    document.title = `${name} · Fieldloop`;
  }, [name]);
  return (
    <>
      <header class="page-head">
        <div class="page-title">
          {parents.length > 0 && (
            <nav aria-label="Breadcrumb" class="crumbs">
              {parents.map((parent) => (
                <Link key={parent.href} href={parent.href}>
                  {parent.title}
                </Link>
              ))}
            </nav>
          )}
          <h1 class="truncate" title={title}>
            {title}
          </h1>
          {beside}
        </div>
        {actions && <div class="page-actions">{actions}</div>}
      </header>
      {children}
    </>
  );
}

interface PanelProps {
  title: string;
  note?: ComponentChildren;
  actions?: ComponentChildren;
  class?: string;
  flush?: boolean;
  children: ComponentChildren;
}

/** A titled part of a page. `flush` leaves no room around a table. */
export function Panel({ title, note, actions, flush, children, ...rest }: PanelProps) {
  return (
    <section class={`panel ${flush ? "flush" : ""} ${rest.class ?? ""}`} aria-label={title}>
      <div class="panel-head">
        <h2>{title}</h2>
        {note && <span class="panel-note">{note}</span>}
        {actions && <span class="panel-actions">{actions}</span>}
      </div>
      <div class="panel-body">{children}</div>
    </section>
  );
}

/** What is missing and what to do about it. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children && <div class="empty-body">{children}</div>}
    </div>
  );
}

/** A failed request: what, why, its code, and a way to try again. */
export function Problem({ error, retry }: { error: ApiError; retry?: () => void }) {
  return (
    <div class="problem" role="alert">
      <div>
        <p class="problem-title">
          {error.title} <code>{error.code}</code>
        </p>
        {error.detail !== error.title && <p class="muted">{error.detail}</p>}
        {error.issues?.map((issue) => (
          <p class="muted" key={issue.path}>
            <code>{issue.path}</code> {issue.message}
          </p>
        ))}
      </div>
      {retry && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** Rows of the shape that will come, so that nothing jumps. */
export function Skeleton({ rows = 4, height = 36 }: { rows?: number; height?: number }) {
  return (
    <div class="skeleton" aria-hidden="true">
      {Array.from({ length: rows }, (_, index) => (
        <div key={index} style={{ height: `${height}px` }}>
          <span style={{ width: `${70 - ((index * 17) % 40)}%` }} />
        </div>
      ))}
    </div>
  );
}

interface LoadedProps<Data> {
  from: Resource<Data>;
  rows?: number;
  height?: number;
  children: (data: Data) => ComponentChildren;
}

/** Draws what a resource holds; a skeleton before, an error instead, a line above when the newest fetch failed. */
export function Loaded<Data>({ from, rows, height, children }: LoadedProps<Data>) {
  if (from.data === undefined) {
    return from.error ? (
      <Problem error={from.error} retry={from.reload} />
    ) : (
      <Skeleton {...(rows ? { rows } : {})} {...(height ? { height } : {})} />
    );
  }
  return (
    <>
      {from.error && <Problem error={from.error} retry={from.reload} />}
      {children(from.data)}
    </>
  );
}

/** One number of a summary. */
export function Tile({
  title,
  value,
  note,
  href,
  tone,
}: {
  title: string;
  value: ComponentChildren;
  note?: ComponentChildren;
  href?: string;
  tone?: "warn" | undefined;
}) {
  const body = (
    <>
      <span class="tile-title">{title}</span>
      <span class="tile-value">{value}</span>
      <span class="tile-note">{note ?? "\u00a0"}</span>
    </>
  );
  const name = tone ? `tile tile-${tone}` : "tile";
  return href ? (
    <Link class={name} href={href}>
      {body}
    </Link>
  ) : (
    <div class={name}>{body}</div>
  );
}

/** Names and values in two columns. */
export function Facts({ rows }: { rows: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
