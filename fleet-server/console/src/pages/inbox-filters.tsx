import type { FailureStatus, Model, SampleQuery, Stratum } from "@fieldloop/protocol";
import { useResource } from "../api/resource.js";
import { type DeviceList, fetchDevices } from "../lib/devices.js";
import { words } from "../lib/format.js";
import { newestFirst } from "../lib/models.js";
import type { Query } from "../lib/url.js";

const STRATA: Record<Stratum, string> = {
  worth: "Taken for worth",
  random: "Taken by chance",
  campaign: "Asked for",
};
const STATUSES: Record<FailureStatus, true> = {
  new: true,
  confirmed: true,
  in_training: true,
  fixed: true,
  regressed: true,
  ignored: true,
};
const KEYS = [
  "model",
  "version",
  "device",
  "stratum",
  "status",
  "labelled",
  "wrong",
  "shadow",
  "order",
] as const;

/** The page's parameters as those of the API. Without a word about labels, what has one is left out: the inbox is work to do. */
export function apiQuery(query: URLSearchParams): Partial<Record<keyof SampleQuery, string>> {
  const labelled = query.get("labelled") ?? (query.get("wrong") || query.get("status") ? "any" : "no");
  const result: Partial<Record<keyof SampleQuery, string>> = {};
  for (const key of KEYS) {
    const value = key === "labelled" ? labelled : query.get(key);
    if (value && value !== "any") result[key] = value;
  }
  return result;
}

export function isFiltered(query: URLSearchParams): boolean {
  return KEYS.some((key) => key !== "order" && query.has(key));
}

interface Preset {
  title: string;
  says: string;
  query: Query;
}
const NONE: Query = {
  labelled: undefined,
  wrong: undefined,
  stratum: undefined,
  status: undefined,
  shadow: undefined,
  order: undefined,
};
const PRESETS: readonly Preset[] = [
  { title: "To label", says: "Without a label, most worth first", query: NONE },
  { title: "Wrong", says: "Known to be wrong, by label or feedback", query: { ...NONE, wrong: "yes" } },
  {
    title: "Disagreements",
    says: "A candidate in shadow decided otherwise: these labels say which version is the better one",
    query: { ...NONE, shadow: "any" },
  },
  {
    title: "By chance",
    says: "The random stratum: its error share holds for everything the devices see",
    query: { ...NONE, stratum: "random" },
  },
  {
    title: "Everything",
    says: "With and without a label, newest first",
    query: { ...NONE, labelled: "any", order: "newest" },
  },
];

const matches = (preset: Preset, query: URLSearchParams) =>
  Object.entries(preset.query).every(([key, value]) => (query.get(key) ?? undefined) === value);

export function InboxFilters({
  query,
  change,
  models,
}: {
  query: URLSearchParams;
  change: (changes: Query) => void;
  models: readonly Model[];
}) {
  const devices = useResource<DeviceList>("/devices", { fetch: fetchDevices });
  const model = models.find((each) => each.model === query.get("model"));
  const set = (changes: Query) => change({ ...changes, sample: undefined });
  const select = (
    key: (typeof KEYS)[number],
    label: string,
    all: string,
    options: readonly (readonly [string, string])[],
  ) => (
    <span class="filter">
      <select
        aria-label={label}
        value={query.get(key) ?? ""}
        onChange={(event) =>
          set({
            [key]: event.currentTarget.value || undefined,
            ...(key === "model" ? { version: undefined } : {}),
          })
        }
      >
        <option value="">{all}</option>
        {options.map(([value, title]) => (
          <option key={value} value={value}>
            {title}
          </option>
        ))}
      </select>
    </span>
  );
  return (
    <div class="filters inbox-filters">
      <fieldset class="segments" aria-label="View">
        {PRESETS.map((preset) => (
          <button
            key={preset.title}
            type="button"
            title={preset.says}
            aria-pressed={matches(preset, query)}
            onClick={() => set(preset.query)}
          >
            {preset.title}
          </button>
        ))}
      </fieldset>
      {select(
        "model",
        "Model",
        "Any model",
        models.map((each) => [each.model, each.model]),
      )}
      {model &&
        select(
          "version",
          "Version",
          "Any version",
          newestFirst(model).map((each) => [String(each.version), `@${each.version}`]),
        )}
      {select(
        "device",
        "Device",
        "Any device",
        (devices.data?.items ?? []).map((each) => [each.device, each.device]),
      )}
      {select("stratum", "Stratum", "Any stratum", Object.entries(STRATA))}
      {select(
        "status",
        "Status",
        "Any status",
        Object.keys(STATUSES).map((status) => [status, words(status)]),
      )}
      {select("labelled", "Label", "Label or not", [
        ["no", "Without label"],
        ["yes", "With label"],
        ["any", "With or without"],
      ])}
      {select("order", "Order", "Most worth first", [["newest", "Newest first"]])}
    </div>
  );
}
