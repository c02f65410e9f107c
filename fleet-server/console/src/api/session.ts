import type { Role } from "@fieldloop/protocol";
import { signal } from "@preact/signals";
import { ApiError, request, toApiError, whenSignedOut } from "./client.js";
import { startLive, stopLive } from "./live.js";
import { clearResources } from "./resource.js";

export interface Session {
  role: Role;
  name: string;
}

/** `undefined` while the server is asked, null when signed out. */
export const session = signal<Session | null | undefined>(undefined);
export const sessionError = signal<ApiError | undefined>(undefined);

const RANK: Record<Role, number> = { viewer: 0, labeler: 1, operator: 2, admin: 3 };

/** Whether the signed-in person may do what needs `role`; the server checks again. */
export function may(role: Role): boolean {
  const current = session.value;
  return current ? RANK[current.role] >= RANK[role] : false;
}

/** Why an action that needs `role` is not offered; undefined where it is. */
export function whyNot(role: Role): string | undefined {
  return may(role)
    ? undefined
    : `Needs the role ${role}; you are signed in as ${session.value?.role ?? "nobody"}`;
}

/** Takes `#token=…` out of the URL before anything else can read or keep it. */
export function takeTokenFromUrl(): string | undefined {
  const token = /[#&]token=([^&]+)/.exec(location.hash)?.[1];
  if (token === undefined) return undefined;
  history.replaceState(history.state, "", location.pathname + location.search);
  return decodeURIComponent(token);
}

/** Resumes the session of the cookie, or starts one with the token of the link. */
export async function resumeSession(): Promise<void> {
  const token = takeTokenFromUrl();
  if (token !== undefined) {
    try {
      await signIn(token);
      return;
    } catch (error) {
      sessionError.value = toApiError(error);
    }
  }
  try {
    begin(await request<Session>("/session"));
  } catch (error) {
    const problem = toApiError(error);
    if (problem.status !== 401 && !sessionError.peek()) sessionError.value = problem;
    session.value = null;
  }
}

/** @throws ApiError `unauthenticated` for an unknown token */
export async function signIn(token: string): Promise<void> {
  begin(await request<Session>("/session", { method: "POST", body: { token } }));
}

export async function signOut(): Promise<void> {
  await request("/session", { method: "DELETE" }).catch(() => undefined);
  end();
}

function begin(started: Session): void {
  sessionError.value = undefined;
  session.value = started;
  startLive();
}

function end(): void {
  stopLive();
  clearResources();
  session.value = null;
}

whenSignedOut(() => {
  if (!session.peek()) return;
  end();
  sessionError.value = new ApiError(
    401,
    "unauthenticated",
    "Signed out",
    "The session is over; sign in again",
  );
});
