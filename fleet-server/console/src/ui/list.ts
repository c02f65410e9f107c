import { useEffect, useRef, useState } from "preact/hooks";
import { useKeys } from "../lib/keys.js";

/** Moves through a list with `j`, `k` and the arrows, opens with Enter. The row in turn is `data-row={index}` inside `ref`. */
export function useListKeys(group: string, count: number, open: (index: number) => void) {
  const [at, setAt] = useState(-1);
  const ref = useRef<HTMLElement>(null);
  const current = Math.min(at, count - 1);
  const move = (step: number) => setAt(Math.max(0, Math.min(count - 1, current + step)));
  useKeys(group, [
    { keys: "j", title: "Next row", run: () => move(1) },
    { keys: "k", title: "Row before", run: () => move(-1) },
    { keys: "ArrowDown", title: "Next row", hidden: true, run: () => move(1) },
    { keys: "ArrowUp", title: "Row before", hidden: true, run: () => move(-1) },
    { keys: "Enter", title: "Open the row", run: () => current >= 0 && open(current) },
  ]);
  useEffect(() => {
    ref.current?.querySelector(`[data-row="${current}"]`)?.scrollIntoView({ block: "nearest" });
  }, [current]);
  return { at: current, ref };
}

/** A click anywhere in a row opens it, unless it was on a control or selects text. */
export function rowClick(open: () => void) {
  return (event: MouseEvent) => {
    if ((event.target as Element).closest("a, button, input, label")) return;
    if (getSelection()?.toString()) return;
    open();
  };
}
