import { FieldloopError, type ColumnEncoding, type TableInput } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { dimsFor, encodeElement, encodeElements } from "./elements.js";
import type { RowValue } from "./frame.js";

type Column = TableInput["columns"][number];
type Row = Readonly<Record<string, RowValue>>;

/** Turns rows of a table into the tensor of one input: every column encoded, one after the other. */
export class TableEncoder {
  readonly dims: readonly number[];
  readonly #input: TableInput;
  readonly #width: number;
  /** Places of categories, by column. */
  readonly #places: readonly (ReadonlyMap<string, number> | undefined)[];

  /** @throws FieldloopError `manifest_invalid` where the dims do not fit the columns, or text meets numbers */
  constructor(input: TableInput) {
    this.#input = input;
    const isText = input.elementType === "string";
    for (const { name, encoding } of input.columns) {
      if ((encoding.kind === "text") === isText) continue;
      throw new FieldloopError(
        "manifest_invalid",
        `Prepare table "${input.name}": column "${name}" is encoded as "${encoding.kind}" in a tensor of ${input.elementType}`,
      );
    }
    for (const column of input.columns) requireHolds(input, column);
    this.#width = encodedWidth(input);
    this.dims = dimsFor(input.name, input.dims, this.#width);
    this.#places = input.columns.map(({ encoding }) =>
      encoding.kind === "index" || encoding.kind === "one-hot"
        ? new Map(encoding.categories.map((category, place) => [category, place]))
        : undefined,
    );
  }

  /**
   * The tensor of one row. Columns that the input does not know are ignored; numbers may come as text, as CSV has them.
   * @throws FieldloopError `row_invalid` naming the column that is missing or holds what its encoding cannot take
   */
  encode(row: Row): Tensor {
    const { columns, elementType } = this.#input;
    if (elementType === "string") {
      const data = columns.map((column) => String(valueOf(column, row, this.#input.name)));
      return { type: "string", dims: this.dims, data };
    }
    const values = new Float64Array(this.#width);
    let place = 0;
    columns.forEach((column, at) => {
      this.#encodeColumn(column, this.#places[at], valueOf(column, row, this.#input.name), values, place);
      place += widthOf(column.encoding);
    });
    return { type: elementType, dims: this.dims, data: encodeElements(elementType, values) };
  }

  #encodeColumn(
    column: Column,
    places: ReadonlyMap<string, number> | undefined,
    value: Exclude<RowValue, null>,
    into: Float64Array,
    place: number,
  ): void {
    const { encoding } = column;
    switch (encoding.kind) {
      case "number":
        into[place] = (this.#number(column, value) - encoding.mean) / encoding.std;
        return;
      case "boolean":
        into[place] = this.#boolean(column, value);
        return;
      case "index": {
        const index = places!.get(String(value)) ?? encoding.unknown;
        if (index === undefined) throw this.#refusal(column, value, `one of ${quoted(encoding.categories)}`);
        into[place] = index;
        return;
      }
      case "one-hot": {
        const index = places!.get(String(value));
        if (index !== undefined) into[place + index] = 1;
        return;
      }
      case "text":
        // The constructor lets no text into a tensor of numbers.
        throw this.#refusal(column, value, "a tensor of text");
    }
  }

  #number(column: Column, value: Exclude<RowValue, null>): number {
    const number = typeof value === "string" ? Number(value) : value;
    if (typeof number !== "number" || !Number.isFinite(number))
      throw this.#refusal(column, value, "a number");
    // Beyond it the neighbours of a whole number are the same number: another key than was meant.
    const isWide = this.#input.elementType === "int64" || this.#input.elementType === "uint64";
    if (isWide && Math.abs(number) > Number.MAX_SAFE_INTEGER) {
      throw this.#refusal(
        column,
        value,
        "a number of at most 2^53 - 1, up to which rows hold whole ones exactly",
      );
    }
    return number;
  }

  #boolean(column: Column, value: Exclude<RowValue, null>): 0 | 1 {
    const text = String(value).toLowerCase();
    if (text === "true" || text === "1") return 1;
    if (text === "false" || text === "0") return 0;
    throw this.#refusal(column, value, "true or false");
  }

  #refusal(column: Column, value: RowValue, wanted: string): FieldloopError {
    return new FieldloopError(
      "row_invalid",
      `Read row for "${this.#input.name}": column "${column.name}" is ${JSON.stringify(value)}, wanted ${wanted}`,
    );
  }
}

/** @throws FieldloopError `manifest_invalid` where a category's place would be clipped to another's */
function requireHolds({ name, elementType }: TableInput, { name: column, encoding }: Column): void {
  if (encoding.kind !== "index" || elementType === "string" || elementType.startsWith("float")) return;
  const places = [
    encoding.categories.length - 1,
    ...(encoding.unknown === undefined ? [] : [encoding.unknown]),
  ];
  const lost = places.find((place) => encodeElement(elementType, place) !== place);
  if (lost === undefined) return;
  throw new FieldloopError(
    "manifest_invalid",
    `Prepare table "${name}": column "${column}" has the index ${lost}, which ${elementType} cannot hold`,
  );
}

/** Numbers (or texts) of one row. */
export function encodedWidth({ columns }: Pick<TableInput, "columns">): number {
  return columns.reduce((sum, { encoding }) => sum + widthOf(encoding), 0);
}

function widthOf(encoding: ColumnEncoding): number {
  return encoding.kind === "one-hot" ? encoding.categories.length : 1;
}

/** Nothing, empty text (where text is not what is wanted) and NaN are missing. */
function valueOf({ name, encoding, missing }: Column, row: Row, input: string): Exclude<RowValue, null> {
  const value = Object.hasOwn(row, name) ? row[name] : null;
  const isEmpty = typeof value === "string" && value.trim() === "" && encoding.kind !== "text";
  if (value !== null && value !== undefined && !isEmpty && !Number.isNaN(value)) return value;
  if (missing !== undefined) return missing;
  throw new FieldloopError("row_invalid", `Read row for "${input}": no value in column "${name}"`);
}

function quoted(values: readonly string[]): string {
  const shown = values.slice(0, 8).map((value) => `"${value}"`);
  return values.length > shown.length ? `${shown.join(", ")}, …` : shown.join(", ");
}
