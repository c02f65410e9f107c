import { useEffect, useRef, useState } from "preact/hooks";

const OVERSCAN_ROWS = 12;
/** Lists up to this length are drawn whole. */
const WHOLE_MAX = 200;

/** Which rows of a long list of equal height to draw, by where its body is on the screen; spacers stand for the rest. */
export function useRowWindow(count: number, rowHeight: number) {
  const body = useRef<HTMLTableSectionElement>(null);
  const [range, setRange] = useState({ first: 0, last: WHOLE_MAX });
  useEffect(() => {
    if (count <= WHOLE_MAX) return undefined;
    const update = () => {
      const top = body.current?.getBoundingClientRect().top ?? 0;
      const first = Math.max(0, Math.floor(-top / rowHeight) - OVERSCAN_ROWS);
      const last = Math.min(count, Math.ceil((innerHeight - top) / rowHeight) + OVERSCAN_ROWS);
      setRange((before) => (before.first === first && before.last === last ? before : { first, last }));
    };
    update();
    addEventListener("scroll", update, { passive: true });
    addEventListener("resize", update);
    return () => {
      removeEventListener("scroll", update);
      removeEventListener("resize", update);
    };
  }, [count, rowHeight]);
  const whole = count <= WHOLE_MAX;
  const first = whole ? 0 : Math.min(range.first, count);
  const last = whole ? count : Math.min(range.last, count);
  return { body, first, last, above: first * rowHeight, below: (count - last) * rowHeight };
}
