import { useEffect, useRef, useState } from "preact/hooks";
import { Icon } from "./icons.js";

const WAIT_MS = 120;

/** A search field that `/` focuses; the change is told a moment after the last key. */
export function Search({
  value,
  change,
  placeholder,
  label,
}: {
  value: string;
  change: (value: string) => void;
  placeholder: string;
  label: string;
}) {
  const [text, setText] = useState(value);
  const told = useRef(value);
  useEffect(() => {
    if (value !== told.current) {
      told.current = value;
      setText(value);
    }
  }, [value]);
  useEffect(() => {
    if (text === told.current) return undefined;
    const timer = setTimeout(() => {
      told.current = text;
      change(text);
    }, WAIT_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return (
    <label class="search">
      <Icon name="search" size={15} />
      <input
        type="search"
        value={text}
        placeholder={placeholder}
        aria-label={label}
        spellcheck={false}
        onInput={(event) => setText(event.currentTarget.value)}
      />
      <kbd aria-hidden="true">/</kbd>
    </label>
  );
}
