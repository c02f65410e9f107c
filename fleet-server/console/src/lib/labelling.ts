import type { Annotation, FailureStatus, SampleView } from "@fieldloop/protocol";
import { ApiError, request } from "../api/client.js";

/** Tries of a write before its failure is shown: a short loss of the link loses no label. */
const TRIES = 4;
const RETRY_MS = 600;

const at = (sample: string) => `/samples/${encodeURIComponent(sample)}`;

export function saveLabel(sample: string, label: string): Promise<SampleView> {
  return insist(() => request<SampleView>(`${at(sample)}/annotations`, { method: "POST", body: { label } }));
}

export function saveStatus(sample: string, status: FailureStatus): Promise<SampleView> {
  return insist(() => request<SampleView>(at(sample), { method: "PATCH", body: { status } }));
}

async function insist<Result>(write: () => Promise<Result>): Promise<Result> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await write();
    } catch (error) {
      const passing =
        error instanceof ApiError && (error.status === 0 || error.status === 503 || error.status === 429);
      if (!passing || attempt >= TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS * 2 ** (attempt - 1)));
    }
  }
}

/** Statuses that a label decides: a right prediction leaves the inbox, a wrong one is confirmed. Later ones are kept. */
const TRIAGE: ReadonlySet<FailureStatus> = new Set(["new", "confirmed", "ignored"]);

/** The sample as it will be once the label is stored. */
export function withLabel(sample: SampleView, label: string, author: string): SampleView {
  const annotation: Annotation = { annotation: "", label, author, created: Date.now(), current: true };
  return {
    ...sample,
    annotation,
    wrong: label === sample.label ? "no" : "yes",
    status: TRIAGE.has(sample.status) ? (label === sample.label ? "ignored" : "confirmed") : sample.status,
  };
}

/** The key that gives a label: the first nine have one. */
export function labelKey(index: number): string | undefined {
  return index < 9 ? String(index + 1) : undefined;
}
