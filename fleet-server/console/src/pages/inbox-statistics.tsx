import { withQuery } from "../api/client.js";
import { useResource } from "../api/resource.js";
import type { FailureStatistics } from "../lib/statistics.js";
import { formatCount } from "../lib/format.js";
import { Share } from "../ui/share.js";

const SAYS = {
  random: { title: "Taken by chance", says: "This error share holds for everything the devices see" },
  worth: {
    title: "Taken for worth",
    says: "Chosen because it looked wrong: the share says how well the signals choose",
  },
  campaign: { title: "Asked for", says: "Sent because somebody asked" },
} as const;

/** Error shares by stratum, the random one first and apart: only it speaks for the whole field. */
export function InboxStatistics({ query }: { query: URLSearchParams }) {
  const path = withQuery("/failures/statistics", {
    model: query.get("model") ?? undefined,
    version: query.get("version") ?? undefined,
    device: query.get("device") ?? undefined,
  });
  const statistics = useResource<FailureStatistics>(path, { live: ["sample"], reloadMinMs: 3_000 });
  return (
    <div class="strata">
      {(["random", "worth", "campaign"] as const).map((stratum) => {
        const found = statistics.data?.strata.find((each) => each.stratum === stratum);
        if (stratum === "campaign" && !found?.samples) return null;
        return (
          <div key={stratum} class={`stratum stratum-${stratum}`} title={SAYS[stratum].says}>
            <span class="tile-title">{SAYS[stratum].title}</span>
            <span class="stratum-share">
              {found?.samples ? (
                <>
                  <Share share={found.errorShare} what="known samples wrong" />{" "}
                  <small class="muted">wrong</small>
                </>
              ) : (
                <span class="faint">no samples</span>
              )}
            </span>
            <span class="tile-note">
              {found
                ? `${formatCount(found.errorShare.count)} known of ${formatCount(found.samples)} samples`
                : "\u00a0"}
            </span>
          </div>
        );
      })}
      <p class="strata-says">
        Only samples taken by chance tell how often the model is wrong in the field; those taken for worth are
        where it pays to label.
      </p>
    </div>
  );
}
