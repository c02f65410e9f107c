import Sqlite from "better-sqlite3";

/**
 * A lock on a file that the operating system takes back with the process that holds it, whoever's process numbers those are (two
 * containers may each be number 1): SQLite's own, held by an exclusive transaction of an empty database.
 * @returns the function that gives it back; undefined where another holds it
 */
export function lockFile(path: string): (() => void) | undefined {
  const connection = new Sqlite(path, { timeout: 0 });
  try {
    connection.exec("begin exclusive");
  } catch (error) {
    connection.close();
    if (error instanceof Sqlite.SqliteError && error.code.startsWith("SQLITE_BUSY")) return undefined;
    throw error;
  }
  return () => connection.close();
}
