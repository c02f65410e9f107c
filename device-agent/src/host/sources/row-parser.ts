import { FieldloopError } from "@fieldloop/protocol";
import type { RowValue } from "@fieldloop/runtime";
import { AGENT_LIMITS } from "../../limits.js";
import type { RowReading } from "../../source-spec.js";
import { parseRowTime, type RowTime } from "./row-time.js";

/** One row: the values of the wanted columns in their order, with their names where the stream says them. */
export interface Row {
  readonly names: readonly string[] | undefined;
  readonly values: readonly RowValue[];
  readonly time: RowTime | undefined;
}

const MISSING = new Set(["", "nan", "na", "n/a", "null"]);
const QUOTED_LENGTH_MAX = 40;

/** Turns lines and JSON into rows. One for each stream: it remembers the header. */
export class RowParser {
  readonly #reading: RowReading;
  #header: readonly string[] | undefined;
  #headerSeen = false;
  #places: { names: readonly string[] | undefined; at: readonly number[]; time: number } | undefined;
  #keys: readonly string[] | undefined;

  constructor(reading: RowReading) {
    this.#reading = reading;
  }

  /** The row of a CSV line (RFC 4180 within one line); undefined for a header, a comment or an empty line. @throws FieldloopError `row_malformed` */
  csv(line: string): Row | undefined {
    if (line.trim() === "" || line.startsWith("#")) return undefined;
    const cells = splitCsv(line, this.#reading.separator);
    if (!this.#headerSeen) {
      this.#headerSeen = true;
      if (isHeader(cells, this.#reading.header)) {
        this.#header = cells.map((cell) => cell.trim());
        return undefined;
      }
    }
    if (this.#header && cells.length !== this.#header.length) {
      throw rowMalformed(`${cells.length} columns, the header has ${this.#header.length}`);
    }
    this.#places ??= this.#placesOf(cells.length);
    const { names, at, time } = this.#places;
    const values = at.map((index) => {
      const cell = cells[index];
      if (cell === undefined) throw rowMalformed(`${cells.length} columns, wanted ${index + 1} and more`);
      return cellValue(cell);
    });
    return { names, values, time: time < 0 ? undefined : parseRowTime(cells[time]) };
  }

  /** The rows of one JSON value: an object (several rows where its columns are arrays), an array of values, or one number. @throws FieldloopError `row_malformed` */
  json(value: unknown): Row[] {
    if (Array.isArray(value)) return [this.#arrayRow(value as unknown[])];
    if (typeof value === "number") return [{ names: undefined, values: [value], time: undefined }];
    if (typeof value === "object" && value !== null)
      return this.#objectRows(value as Record<string, unknown>);
    throw rowMalformed("neither an object nor an array nor a number");
  }

  #placesOf(width: number): { names: readonly string[] | undefined; at: number[]; time: number } {
    const { columns, time } = this.#reading;
    const timeAt = time === undefined ? -1 : this.#placeOf(time);
    const all = Array.from({ length: width }, (_, index) => index).filter((index) => index !== timeAt);
    if (columns === undefined)
      return { names: this.#header && all.map((at) => this.#header![at]!), at: all, time: timeAt };
    if (!this.#header && !columns.every((name) => /^\d+$/.test(name))) {
      // Without a header, names are given to the columns as they come.
      if (columns.length > all.length) throw rowMalformed(`${width} columns, wanted ${columns.join(", ")}`);
      return { names: columns, at: all.slice(0, columns.length), time: timeAt };
    }
    const at = columns.map((name) => this.#placeOf(name));
    return {
      names: this.#header && at.map((index) => this.#header![index] ?? String(index)),
      at,
      time: timeAt,
    };
  }

  #placeOf(name: string): number {
    const at = this.#header?.indexOf(name) ?? -1;
    if (at >= 0) return at;
    if (/^\d{1,4}$/.test(name)) return Number(name);
    throw rowMalformed(
      this.#header
        ? `no column "${name}", there are ${this.#header.join(", ").slice(0, 200)}`
        : `no header that names "${name}", say its position`,
    );
  }

  #arrayRow(items: readonly unknown[]): Row {
    if (items.length > AGENT_LIMITS.rowColumnsMax) throw rowMalformed(`${items.length} values in a row`);
    const { columns, time } = this.#reading;
    const timeAt = time === undefined ? -1 : positionOf(time);
    const rest = items.map((_, index) => index).filter((index) => index !== timeAt);
    const byPosition = columns?.every((name) => /^\d+$/.test(name)) === true;
    const at =
      columns === undefined ? rest : byPosition ? columns.map(positionOf) : rest.slice(0, columns.length);
    if (columns !== undefined && !byPosition && rest.length < columns.length) {
      throw rowMalformed(`${items.length} values, wanted ${columns.join(", ")}`);
    }
    const values = at.map((index) => {
      if (index >= items.length) throw rowMalformed(`${items.length} values, wanted ${index + 1} and more`);
      return jsonValue(items[index]);
    });
    return {
      names: columns !== undefined && !byPosition ? columns : undefined,
      values,
      time: timeAt < 0 ? undefined : parseRowTime(items[timeAt]),
    };
  }

  /** An object whose columns are arrays of one length holds several samples. */
  #objectRows(object: Readonly<Record<string, unknown>>): Row[] {
    const { columns, time } = this.#reading;
    const names = columns ?? this.#keysOf(object);
    const stamp = time === undefined ? undefined : parseRowTime(own(object, time));
    const found = names.map((name) => own(object, name));
    if (found.length > 0 && found.every((item) => Array.isArray(item))) {
      const arrays = found as unknown[][];
      const { length } = arrays[0]!;
      if (arrays.some((array) => array.length !== length)) throw rowMalformed("arrays of different lengths");
      return Array.from({ length }, (_, at) => ({
        names,
        values: arrays.map((array) => jsonValue(array[at])),
        time: at === 0 ? stamp : undefined,
      }));
    }
    return [{ names, values: found.map(jsonValue), time: stamp }];
  }

  /** Without `columns`, those of the first object: a later one may lack some and adds none. */
  #keysOf(object: Readonly<Record<string, unknown>>): readonly string[] {
    if (this.#keys) return this.#keys;
    const keys = Object.keys(object).filter((key) => key !== this.#reading.time);
    if (keys.length === 0 || keys.length > AGENT_LIMITS.rowColumnsMax)
      throw rowMalformed(`${keys.length} columns`);
    this.#keys = keys;
    return keys;
  }
}

export function rowMalformed(what: string): FieldloopError {
  return new FieldloopError("row_malformed", what);
}

/** A header says names: none of its cells is a number. */
function isHeader(cells: readonly string[], header: RowReading["header"]): boolean {
  if (header !== "auto") return header === "1";
  return (
    cells.some((cell) => cell.trim() !== "") && cells.every((cell) => typeof cellValue(cell) !== "number")
  );
}

/** RFC 4180: cells in double quotes may hold the separator, and `""` for a quote. */
function splitCsv(line: string, separator: string): string[] {
  const cells = line.includes('"')
    ? splitQuoted(line, separator)
    : line.split(separator, AGENT_LIMITS.rowColumnsMax + 1);
  if (cells.length > AGENT_LIMITS.rowColumnsMax) {
    throw rowMalformed(`more than ${AGENT_LIMITS.rowColumnsMax} columns`);
  }
  return cells;
}

function splitQuoted(line: string, separator: string): string[] {
  const cells: string[] = [];
  let at = 0;
  while (at <= line.length && cells.length <= AGENT_LIMITS.rowColumnsMax) {
    if (line[at] === '"') {
      let cell = "";
      let from = at + 1;
      for (;;) {
        const quote = line.indexOf('"', from);
        if (quote < 0) throw rowMalformed("a quote that does not end");
        cell += line.slice(from, quote);
        at = quote + 1;
        if (line[at] !== '"') break;
        cell += '"';
        from = at + 1;
      }
      if (at < line.length && line[at] !== separator) throw rowMalformed("text behind a quote");
      cells.push(cell);
      at++;
    } else {
      const end = line.indexOf(separator, at);
      cells.push(line.slice(at, end < 0 ? undefined : end));
      at = end < 0 ? line.length + 1 : end + 1;
    }
  }
  return cells;
}

function cellValue(cell: string): RowValue {
  const text = cell.trim();
  const number = Number(text);
  if (text !== "" && Number.isFinite(number)) return number;
  return MISSING.has(text.toLowerCase()) ? null : text;
}

function jsonValue(value: unknown): RowValue {
  if (value === null || value === undefined) return null;
  if (typeof value === "number" || typeof value === "boolean" || typeof value === "string") return value;
  throw rowMalformed(`${Array.isArray(value) ? "an array" : "an object"} where a value was wanted`);
}

function own(object: Readonly<Record<string, unknown>>, name: string): unknown {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

function positionOf(name: string): number {
  if (!/^\d{1,4}$/.test(name))
    throw rowMalformed(`an array has no column "${name.slice(0, QUOTED_LENGTH_MAX)}"`);
  return Number(name);
}
