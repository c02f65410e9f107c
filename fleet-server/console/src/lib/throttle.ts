export interface Throttled {
  (): void;
  cancel(): void;
}

/** Runs `work` at once, then at most once in `minMs`; a call in between runs at the end of that time. */
export function throttle(work: () => void, minMs: number): Throttled {
  let last = Number.NEGATIVE_INFINITY;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const run = () => {
    timer = undefined;
    last = Date.now();
    work();
  };
  const throttled = () => {
    if (timer !== undefined) return;
    const waitMs = last + minMs - Date.now();
    if (waitMs <= 0) run();
    else timer = setTimeout(run, waitMs);
  };
  return Object.assign(throttled, {
    cancel() {
      clearTimeout(timer);
      timer = undefined;
    },
  });
}
