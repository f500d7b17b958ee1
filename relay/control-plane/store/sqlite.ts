import type * as Sqlite from 'node:sqlite';
import type { SqliteDatabase, SqliteStatement } from 'kysely';
import { toBindable } from './bindable.ts';
import { storeUnavailable } from './store-unavailable.ts';

/** Compiled statements kept; Kysely writes the same few texts over and over. */
const maxCachedStatements = 256;

/** How long a statement waits for another process (a backup, an operator's shell) to let go of the file. */
const busyTimeoutMs = 5_000;

/**
 * Node 22 announces node:sqlite as experimental on standard error, which is the operator's. It does so in the very
 * call that loads it, so that nothing else is silenced meanwhile.
 */
function loadSqlite(): typeof Sqlite {
  const announce = Object.getOwnPropertyDescriptor(process, 'emitWarning');
  process.emitWarning = () => undefined;
  try {
    return process.getBuiltinModule('node:sqlite');
  } finally {
    if (announce) Object.defineProperty(process, 'emitWarning', announce);
  }
}

/**
 * Opens `path` with node:sqlite in the shape that Kysely's SQLite dialect drives. Write-ahead log with a
 * sync at every commit: what was acknowledged survives a kill and a power cut.
 */
export function openSqlite(path: string): SqliteDatabase {
  const { DatabaseSync } = loadSqlite();
  const database = new DatabaseSync(path, { timeout: busyTimeoutMs });
  database.exec('pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on');
  const cache = new Map<string, CompiledStatement>();
  const compile = (text: string): CompiledStatement => {
    const compiled = cache.get(text) ?? withReader(database.prepare(text));
    cache.delete(text);
    cache.set(text, compiled);
    if (cache.size > maxCachedStatements) {
      for (const oldest of cache.keys()) {
        cache.delete(oldest);
        break;
      }
    }
    return compiled;
  };
  return {
    close: () => {
      cache.clear();
      database.close();
    },
    prepare: (text): SqliteStatement => {
      const { statement, reader } = compile(text);
      return {
        reader,
        all: (parameters) => explained(() => statement.all(...parameters.map(toBindable))),
        run: (parameters) => {
          // A full disk has SQLite roll back by itself; the failure that follows would hide the first.
          if (text === 'rollback' && !database.isTransaction) return nothingDone;
          return explained(() => statement.run(...parameters.map(toBindable)));
        },
        // A cursor stays open between rows, so it must not share a cached statement.
        iterate: (parameters) => database.prepare(text).iterate(...parameters.map(toBindable)),
      };
    },
  };
}

interface CompiledStatement {
  readonly statement: Sqlite.StatementSync;
  /** It answers rows. */
  readonly reader: boolean;
}

function withReader(statement: Sqlite.StatementSync): CompiledStatement {
  return { statement, reader: statement.columns().length > 0 };
}

const nothingDone = { changes: 0, lastInsertRowid: 0 };

/** Results of SQLite that blame the file, its disk or who else holds it: busy, read-only, I/O, full, cannot open. */
const outageResults: ReadonlySet<number> = new Set([5, 8, 10, 13, 14]);

/** Runs a statement. Throws ERR_RELAY_UNAVAILABLE for what its disk caused rather than what was asked. */
function explained<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    const result = (error as { readonly errcode?: unknown }).errcode;
    // The low byte is the result; what is above says more about it.
    if (typeof result !== 'number' || !outageResults.has(result & 0xff)) throw error;
    throw storeUnavailable(error);
  }
}
