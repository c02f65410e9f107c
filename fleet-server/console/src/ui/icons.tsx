const PATHS = {
  fleet: "M4 6h16v9H4z M9 19h6 M12 15v4",
  inbox: "M4 13l3-8h10l3 8v6H4z M4 13h5l1.5 2.5h3L15 13h5",
  models: "M12 3l8 4.5v9L12 21l-8-4.5v-9z M4 7.5l8 4.5 8-4.5 M12 12v9",
  rollouts: "M4 7h9 M4 12h13 M4 17h6 M16 4l4 3-4 3",
  webhooks:
    "M12 4a3.5 3.5 0 0 1 3 5.3L18 15 M12 7.5L8.5 15a3.5 3.5 0 1 1-2.7-3.4 M9 17h7a3.2 3.2 0 1 0 .9-2.6",
  docs: "M6 3h9l4 4v14H6z M14 3v5h5 M9 13h6 M9 17h6",
  help: "M12 21a9 9 0 1 1 0-18 9 9 0 0 1 0 18z M9.5 9.5a2.5 2.5 0 1 1 3.4 2.3c-.6.3-.9.8-.9 1.7 M12 16.8v.2",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8z M12 2v2 M12 20v2 M2 12h2 M20 12h2 M5 5l1.4 1.4 M17.6 17.6L19 19 M5 19l1.4-1.4 M17.6 6.4L19 5",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  exit: "M14 4h5v16h-5 M4 12h11 M11 8l4 4-4 4",
  search: "M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14z M16 16l4.5 4.5",
  copy: "M9 9h11v11H9z M15 9V4H4v11h5",
  check: "M5 12.5l4.5 4.5L19 7.5",
  cross: "M6 6l12 12 M18 6L6 18",
  arrow: "M5 12h14 M13 6l6 6-6 6",
  chevron: "M9 6l6 6-6 6",
  plus: "M12 5v14 M5 12h14",
  undo: "M9 7L4 12l5 5 M4 12h10a6 6 0 0 1 6 6",
} as const;
export type IconName = keyof typeof PATHS;

/** Decoration beside text; a control that shows only an icon has its own label. */
export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** The mark of the product: a loop that closes. */
export function Mark({ size = 20 }: { size?: number }) {
  return (
    <svg class="mark" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true">
      <path d="M19 12a7 7 0 1 1-2.8-5.6" />
      <path d="M17 2.5v4.5h-4.5" />
    </svg>
  );
}
