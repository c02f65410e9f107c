import { sql, type SQL } from "drizzle-orm";

/**
 * Where a list that is newest first goes on: behind the last one read. Many are written in one millisecond, so that the time alone
 * would leave out those that share it across the border of two pages; ids tell them apart.
 */
export interface Behind {
  /** Milliseconds. */
  readonly time: number;
  readonly id: string;
}

/** The columns that such a list is ordered by. */
export interface NewestOrder {
  /** For `order by`. */
  readonly order: SQL;
  /** For `where`; true of everything where nothing was read yet. */
  behind(last: Behind | undefined): SQL;
}

/** @param time the column of milliseconds @param id the column of ids; both names, never input */
export function newestFirst(time: string, id: string): NewestOrder {
  const [at, key] = [sql.raw(time), sql.raw(id)];
  return {
    order: sql`${at} desc, ${key} desc`,
    behind: (last) =>
      last ? sql`(${at} < ${last.time} or (${at} = ${last.time} and ${key} < ${last.id}))` : sql`1 = 1`,
  };
}
