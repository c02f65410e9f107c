import type { Tensor } from "../../backend.js";
import { logitOf, named, outputInvalid, realValues, sigmoidOf } from "../values.js";
import type { Candidates } from "./candidates.js";
import type { DetectionHead } from "./decoder.js";

/** N rows (boxes) × columns over an output, whichever of the two lies closer in memory. */
export interface Table {
  readonly data: Float32Array;
  readonly rows: number;
  readonly rowStride: number;
  readonly columnStride: number;
}

/**
 * Reads an output as rows of `columns` values: [1, N, columns], [1, columns, N] or [1, columns, rows, columns], the first two also without
 * the batch. Where both orders fit, `preferred` decides.
 * @throws FieldloopError `model_output_invalid` where it has another shape
 */
export function tableOf(
  head: DetectionHead,
  name: string,
  tensor: Tensor,
  columns: number,
  preferred: "rows" | "columns",
): Table {
  const data = realValues(tensor, head.quantization);
  // One row of [N, columns] is no batch of one.
  const dims = tensor.dims[0] === 1 && tensor.dims.length > 2 ? tensor.dims.slice(1) : tensor.dims;
  const [first = 0, ...others] = dims;
  const rest = others.reduce((product, size) => product * size, 1);
  const fits = data.length === first * rest && dims.length >= 2 && dims.length <= 3;
  const byRows = fits && dims.length === 2 && rest === columns;
  const byColumns = fits && first === columns;
  if (byColumns && (preferred === "columns" || !byRows)) {
    return { data, rows: rest, rowStride: 1, columnStride: rest };
  }
  if (byRows) return { data, rows: first, rowStride: columns, columnStride: 1 };
  const wanted = preferred === "rows" ? `[1, N, ${columns}]` : `[1, ${columns}, N]`;
  throw outputInvalid(
    head,
    `output ${named(name, tensor)}, wanted ${wanted} for ${head.labels.length} labels`,
  );
}

export function cell(table: Table, row: number, column: number): number {
  return table.data[row * table.rowStride + column * table.columnStride]!;
}

/** Adds each row's best class; the classes begin at column `first`. */
export function scanClasses(
  table: Table,
  first: number,
  head: DetectionHead,
  logits: boolean,
  candidates: Candidates,
): void {
  const raw = table.rowStride === 1 ? bestByColumns(table, first, head) : bestByRows(table, first, head);
  const floor = logits ? logitOf(candidates.floor) : candidates.floor;
  let highest = Number.NEGATIVE_INFINITY;
  for (let row = 0; row < table.rows; row++) {
    const score = raw.scores[row]!;
    if (score > highest) highest = score;
    if (score >= floor)
      candidates.add(logits ? sigmoidOf(score) : Math.min(score, 1), row, raw.classes[row]!);
  }
  if (highest > Number.NEGATIVE_INFINITY) candidates.see(logits ? sigmoidOf(highest) : highest);
}

interface Best {
  readonly scores: Float32Array;
  readonly classes: Uint16Array;
}

function emptyBest(rows: number): Best {
  return {
    scores: new Float32Array(rows).fill(Number.NEGATIVE_INFINITY),
    classes: new Uint16Array(rows),
  };
}

/** Rows compared over all classes before the next ones: what is compared stays in the fastest cache. */
const ROWS_AT_ONCE = 2_048;

/** Class by class in the order of memory, some rows at a time. */
function bestByColumns(table: Table, first: number, head: DetectionHead): Best {
  const best = emptyBest(table.rows);
  const { data, rows, columnStride } = table;
  for (let from = 0; from < rows; from += ROWS_AT_ONCE) {
    const to = Math.min(from + ROWS_AT_ONCE, rows);
    for (let label = 0; label < head.labels.length; label++) {
      raise(best, data, (first + label) * columnStride, label, from, to);
    }
  }
  return best;
}

function raise(
  best: Best,
  data: Float32Array,
  offset: number,
  label: number,
  from: number,
  to: number,
): void {
  const { scores, classes } = best;
  for (let row = from; row < to; row++) {
    const score = data[offset + row]!;
    if (score > scores[row]!) {
      scores[row] = score;
      classes[row] = label;
    }
  }
}

function bestByRows(table: Table, first: number, head: DetectionHead): Best {
  const best = emptyBest(table.rows);
  for (let row = 0; row < table.rows; row++) {
    const { score, label } = bestOfRow(table, row, first, head.labels.length);
    best.scores[row] = score;
    best.classes[row] = label;
  }
  return best;
}

function bestOfRow(
  table: Table,
  row: number,
  first: number,
  count: number,
): { score: number; label: number } {
  const { data, columnStride } = table;
  let at = row * table.rowStride + first * columnStride;
  let score = Number.NEGATIVE_INFINITY;
  let label = 0;
  for (let index = 0; index < count; index++, at += columnStride) {
    if (data[at]! > score) {
      score = data[at]!;
      label = index;
    }
  }
  return { score, label };
}

/**
 * Adds each row's best class where an objectness in column 4 stands before the classes. `combine` gives the score from both, grows with both,
 * and is at most `combine(objectness, 1)`: rows that cannot matter cost one look.
 */
export function scanObjects(
  table: Table,
  objectnessColumn: number,
  head: DetectionHead,
  combine: (objectness: number, probability: number) => number,
  candidates: Candidates,
): void {
  const logits = head.values === "logits";
  for (let row = 0; row < table.rows; row++) {
    const raw = cell(table, row, objectnessColumn);
    const objectness = logits ? sigmoidOf(raw) : raw;
    const limit = combine(objectness, 1);
    if (limit < candidates.floor && limit <= candidates.scoreMax) continue;
    const best = bestOfRow(table, row, 5, head.labels.length);
    const score = combine(objectness, logits ? sigmoidOf(best.score) : best.score);
    candidates.see(score);
    candidates.add(Math.min(score, 1), row, best.label);
  }
}
