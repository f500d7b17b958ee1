import {
  CamelCasePlugin,
  PostgresDialect,
  PostgresQueryCompiler,
  SqliteDialect,
  SqliteQueryCompiler,
  type PluginTransformQueryArgs,
  type QueryCompiler,
  type RootOperationNode,
} from 'kysely';

/**
 * Kysely's mapping of camelCase here to snake_case in the store, for the rows that come back. What is asked is mapped as
 * its text is made: a copy of every statement's tree would cost more than the statement.
 */
class ColumnNames extends CamelCasePlugin {
  readonly #columns = new Map<string, string>();

  override transformQuery({ node }: PluginTransformQueryArgs): RootOperationNode {
    return node;
  }

  /** What is called `name` here. Names are our own words, so they are few. */
  toColumn(name: string): string {
    const known = this.#columns.get(name);
    if (known !== undefined) return known;
    const column = this.snakeCase(name);
    this.#columns.set(name, column);
    return column;
  }
}

/** To be used together with one of the dialects below. */
export const columnNames = new ColumnNames({ maintainNestedObjectKeys: true });

export class SqliteSnakeCase extends SqliteDialect {
  override createQueryCompiler(): QueryCompiler {
    return new (class extends SqliteQueryCompiler {
      protected override sanitizeIdentifier(name: string): string {
        return super.sanitizeIdentifier(columnNames.toColumn(name));
      }
    })();
  }
}

export class PostgresSnakeCase extends PostgresDialect {
  override createQueryCompiler(): QueryCompiler {
    return new (class extends PostgresQueryCompiler {
      protected override sanitizeIdentifier(name: string): string {
        return super.sanitizeIdentifier(columnNames.toColumn(name));
      }
    })();
  }
}
