import { useSearchParams } from "wouter-preact";

export type Query = Record<string, string | undefined>;

/** The page's parameters and the way to change some of them; a filter replaces the entry in the history, it does not add one. */
export function useQuery(): [URLSearchParams, (changes: Query) => void] {
  const [parameters, setParameters] = useSearchParams();
  const change = (changes: Query) =>
    setParameters(
      (current) => {
        for (const [key, value] of Object.entries(changes)) {
          if (value === undefined || value === "") current.delete(key);
          else current.set(key, value);
        }
        return current;
      },
      { replace: true },
    );
  return [parameters, change];
}

export const devicePath = (device: string) => `/devices/${encodeURIComponent(device)}`;
export const versionPath = (model: string, version: number) =>
  `/models/${encodeURIComponent(model)}/${version}`;
export const rolloutPath = (rollout: string) => `/rollouts/${encodeURIComponent(rollout)}`;
export const webhookPath = (webhook: string) => `/webhooks/${encodeURIComponent(webhook)}`;
export const runPath = (run: string) => `/training/${encodeURIComponent(run)}`;
