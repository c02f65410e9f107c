import { useEffect, useRef, useState } from "preact/hooks";
import { type ApiError, toApiError } from "../api/client.js";
import { resumeSession, sessionError, signIn } from "../api/session.js";
import { Command } from "../ui/atoms.js";
import { Mark } from "../ui/icons.js";
import { Problem } from "../ui/layout.js";

/** Asks for the token; a link with `#token=…` never gets here. */
export function SignInPage() {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | undefined>(undefined);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = "Sign in · Fieldloop";
    input.current?.focus();
  }, []);

  const submit = async (event: Event) => {
    event.preventDefault();
    const token = input.current?.value.trim();
    if (!token) return;
    setBusy(true);
    try {
      await signIn(token);
    } catch (problem) {
      setError(toApiError(problem));
      setBusy(false);
      input.current?.select();
    }
  };
  const shown = error ?? sessionError.value;
  return (
    <main class="sign-in">
      <form onSubmit={(event) => void submit(event)}>
        <div class="brand large">
          <Mark size={28} />
          <span>Fieldloop</span>
        </div>
        <h1>Sign in</h1>
        {shown && (
          <Problem error={shown} {...(shown.status === 401 ? {} : { retry: () => void resumeSession() })} />
        )}
        <label class="field">
          <span>Access token</span>
          <input
            ref={input}
            type="password"
            name="token"
            autoComplete="current-password"
            spellcheck={false}
            required
          />
        </label>
        <button type="submit" class="primary" disabled={busy}>
          {busy ? "Signing in…" : "Sign in"}
        </button>
        <p class="muted">
          The server prints a link with the token when it starts for the first time, and keeps it in its data
          folder:
        </p>
        <Command text="cat DATA/admin-token" />
      </form>
    </main>
  );
}
