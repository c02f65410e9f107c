/** Levels of one sign of an 8-bit integer. */
const LEVELS = 128;
/** Bins that candidates are taken from, and the step between two candidates. */
const CANDIDATE_BINS = 2048;
const CANDIDATE_STEP = 8;
/**
 * Share of the magnitudes that may be clipped. The divergence sees how probability is spread, not where: of values that lie together far
 * from zero it would clip every one, which costs it nothing, and the tensor its content.
 */
const CLIPPED_SHARE_MAX = 0.02;

/**
 * The magnitude at which to clip a tensor so that its 8-bit form loses the least information: the least Kullback-Leibler
 * divergence of the clipped distribution from its form in 128 levels (S. Migacz, "8-bit Inference with TensorRT", GTC 2017).
 *
 * @param counts how often each magnitude occurs, bin i for [i, i + 1) widths
 * @returns how many bins to keep; all where there are no more than the levels
 */
export function entropyThreshold(counts: Float64Array): number {
  let last = counts.length;
  while (last > 0 && counts[last - 1] === 0) last--;
  if (last <= LEVELS) return last;
  const merge = Math.ceil(last / CANDIDATE_BINS);
  const bins = merge === 1 ? counts.subarray(0, last) : mergeBins(counts.subarray(0, last), merge);
  const keptMin = fewestBins(bins);
  let best = bins.length;
  let least = Number.POSITIVE_INFINITY;
  for (const kept of candidates(bins.length)) {
    if (kept < keptMin) continue;
    const divergence = clippedDivergence(bins, kept, LEVELS);
    // At equal divergence the wider range wins: nothing is clipped for no gain.
    if (divergence <= least) {
      least = divergence;
      best = kept;
    }
  }
  return Math.min(last, best * merge);
}

/** Bins that hold all but the largest magnitudes which may be clipped. */
function fewestBins(counts: Float64Array): number {
  const clippedMax = CLIPPED_SHARE_MAX * counts.reduce((sum, count) => sum + count, 0);
  let kept = counts.length;
  let clipped = 0;
  while (kept > 1 && clipped + counts[kept - 1]! <= clippedMax) clipped += counts[--kept]!;
  return kept;
}

/** Numbers of bins to try: every eighth from the number of levels on, and all of them. */
export function candidates(binCount: number): number[] {
  const tried: number[] = [];
  for (let kept = LEVELS; kept < binCount; kept += CANDIDATE_STEP) tried.push(kept);
  return [...tried, binCount];
}

function mergeBins(counts: Float64Array, factor: number): Float64Array {
  const merged = new Float64Array(Math.ceil(counts.length / factor));
  for (let at = 0; at < counts.length; at++) merged[Math.floor(at / factor)]! += counts[at]!;
  return merged;
}

/**
 * KL(P || Q) in nats. P: the first `kept` bins, the rest added to the last of them. Q: the same bins without that rest, summed in
 * `levels` groups and spread evenly over those bins of each group that hold anything.
 */
export function clippedDivergence(counts: Float64Array, kept: number, levels: number): number {
  let outside = 0;
  for (let at = kept; at < counts.length; at++) outside += counts[at]!;
  let inside = 0;
  for (let at = 0; at < kept; at++) inside += counts[at]!;
  const total = inside + outside;
  if (total === 0 || inside === 0) return Number.POSITIVE_INFINITY;
  let divergence = 0;
  for (let level = 0; level < levels; level++) {
    const from = Math.floor((level * kept) / levels);
    const to = Math.floor(((level + 1) * kept) / levels);
    let sum = 0;
    let used = 0;
    for (let at = from; at < to; at++) {
      sum += counts[at]!;
      if (counts[at]! > 0) used++;
    }
    for (let at = from; at < to; at++) {
      const p = (counts[at]! + (at === kept - 1 ? outside : 0)) / total;
      if (p === 0) continue;
      // A bin that only holds what was clipped has no share in Q: as good as impossible there.
      const q = counts[at]! > 0 ? sum / used / inside : Number.EPSILON;
      divergence += p * Math.log(p / q);
    }
  }
  return divergence;
}
