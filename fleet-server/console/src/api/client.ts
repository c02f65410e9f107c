import type { Problem } from "@fieldloop/protocol";

/** A request that gave no result. `code` is the server's stable one, or `unreachable` where nothing answered. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: number,
    readonly code: string,
    readonly title: string,
    readonly detail: string,
    readonly issues?: Problem["issues"],
  ) {
    super(`${title}: ${detail}`);
  }
}

export interface RequestSettings {
  method?: "GET" | "POST" | "PATCH" | "DELETE";
  body?: unknown;
  signal?: AbortSignal;
}

/** A request that has not answered by then counts as unreachable. */
const REQUEST_TIMEOUT_MS = 30_000;
const BASE = "/api/v1";

type Listener = () => void;
let onSignedOut: Listener = () => {};
/** Called for each 401: the session is over. */
export function whenSignedOut(listener: Listener): void {
  onSignedOut = listener;
}

/**
 * One call of the API; `path` is relative to `/api/v1`. The result's type is the contract's: the server validates what it sends.
 * @throws ApiError
 */
export async function request<Result>(path: string, settings: RequestSettings = {}): Promise<Result> {
  const response = await send(path, settings);
  if (response.status === 204) return undefined as Result;
  if (response.ok) return (await response.json()) as Result;
  const error = await readProblem(response);
  if (response.status === 401 && path !== "/session") onSignedOut();
  throw error;
}

async function send(path: string, settings: RequestSettings): Promise<Response> {
  const timeout = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  try {
    return await fetch(BASE + path, {
      method: settings.method ?? "GET",
      credentials: "same-origin",
      headers: {
        accept: "application/json",
        ...(settings.body === undefined ? {} : { "content-type": "application/json" }),
      },
      signal: settings.signal ? AbortSignal.any([settings.signal, timeout]) : timeout,
      ...(settings.body === undefined ? {} : { body: JSON.stringify(settings.body) }),
    });
  } catch (cause) {
    if (settings.signal?.aborted) throw cause;
    throw new ApiError(0, "unreachable", "The server does not answer", `${BASE}${path} could not be fetched`);
  }
}

async function readProblem(response: Response): Promise<ApiError> {
  const fallback = new ApiError(
    response.status,
    `http_${response.status}`,
    "The server refused the request",
    `${response.status} ${response.statusText}`.trim(),
  );
  if (!response.headers.get("content-type")?.includes("json")) return fallback;
  try {
    const problem = (await response.json()) as Partial<Problem>;
    return new ApiError(
      response.status,
      problem.code ?? fallback.code,
      problem.title ?? fallback.title,
      problem.detail ?? fallback.detail,
      problem.issues,
    );
  } catch {
    return fallback;
  }
}

/** Anything thrown as an error that a page can show. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError(
    0,
    "internal",
    "The console failed",
    error instanceof Error ? error.message : String(error),
  );
}

/** `path` with its defined parameters. */
export function withQuery(path: string, query: Record<string, string | number | undefined>): string {
  const entries = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  if (entries.length === 0) return path;
  return `${path}?${new URLSearchParams(entries.map(([key, value]) => [key, String(value)]))}`;
}
