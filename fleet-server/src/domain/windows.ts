import { windowState, type UpdateWindow } from "@fieldloop/protocol";

/** A window that is open, and when it closes; or none, and when the next one opens. Milliseconds. */
export type WindowsState =
  | { readonly open: UpdateWindow; readonly until: number }
  | { readonly open: null; readonly until: number };

/** The maintenance windows of one rollout; each time zone is worked out once until something opens or closes there. */
export class Windows {
  readonly #windows: readonly UpdateWindow[];
  readonly #zones = new Map<string, WindowsState>();

  constructor(windows: readonly UpdateWindow[]) {
    this.#windows = windows;
  }

  /** @returns undefined where there are no windows: any time is as good */
  state(timeZone: string, now: number): WindowsState | undefined {
    if (this.#windows.length === 0) return undefined;
    const known = this.#zones.get(timeZone);
    if (known && now < known.until) return known;
    const state = this.#read(timeZone, now);
    this.#zones.set(timeZone, state);
    return state;
  }

  /** Of several open ones, the one that closes last. */
  #read(timeZone: string, now: number): WindowsState {
    let open: WindowsState | undefined;
    let opensAt = Number.POSITIVE_INFINITY;
    for (const window of this.#windows) {
      const state = windowState(window, now, timeZone);
      if (!state.open) opensAt = Math.min(opensAt, state.opensAt);
      else if (state.closesAt > (open?.until ?? 0)) open = { open: window, until: state.closesAt };
    }
    return open ?? { open: null, until: opensAt };
  }
}
