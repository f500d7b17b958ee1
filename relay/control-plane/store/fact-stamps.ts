import { createHash } from 'node:crypto';
import { PostgresAdapter, sql, type Kysely } from 'kysely';
import type { Reader, Tx } from './store.ts';

/**
 * Tables that no decision about a live tunnel rests on. Every other one, those of later migrations too, is watched by
 * triggers: who adds a table has to say here why nobody needs to hear of its changes, or they are heard of.
 */
export const noFacts: Readonly<Record<string, string>> = {
  audit: 'tells what happened',
  browser_sessions: 'what a person may do on a page, where no tunnel ends',
  checkpoints: 'tells what happened',
  connector_links: 'who verifies a tunnel, not whether it may live',
  connectors: 'where a path leads; they are revoked by the log',
  control_planes: 'who verifies a tunnel, not whether it may live',
  decisions: 'tells what was decided',
  fact_stamps: 'the stamps themselves',
  invites: 'for who is not enrolled yet',
  kysely_migration: 'the schema',
  kysely_migration_lock: 'the schema',
  meta: 'counters',
  passkeys: 'how to sign in; the session says how somebody did',
  provider_grants: 'how to ask a provider again; what it says changes users, groups and sessions',
  providers: 'how to sign in; the session says how somebody did',
  recovery_codes: 'how to sign in; the session says how somebody did',
  relays: 'where a path leads; they are revoked by the log',
  revocations: 'tells what was ended; the log has its own feed',
  risk_profiles: 'outlives the process; what counts is in memory, and asked each time',
  scim_tokens: 'who may change users, not what users may do',
  service_credentials: 'how to sign in; the session says how somebody did',
  sign_ins: 'for who is not signed in yet',
  signal_outbox: 'tells others',
  signal_streams: 'how streams are doing',
  signal_tokens: 'which tokens came',
  totp_secrets: 'how to sign in; the session says how somebody did',
  tunnels: 'what is decided on, with an index of its own in memory',
};

/**
 * Columns whose change alone is not heard of. Each only says that a fact holds for longer, and whoever goes by an older
 * value of it looks again before that one's end.
 */
const onlyLater: Readonly<Record<string, readonly string[]>> = {
  devices: ['last_seen_at_ms'],
  postures: ['at_ms'],
  sessions: ['last_seen_at_ms'],
};

/**
 * The column that says whom a row is about. A change of any other table may be about everybody. Stamps are never removed, so
 * there must not be ever more subjects: a session is its user's.
 */
const subjectColumns: Readonly<Record<string, string>> = {
  apps: 'id',
  devices: 'id',
  memberships: 'user_id',
  postures: 'device_id',
  provided_memberships: 'user_id',
  sessions: 'user_id',
  signal_marks: 'subject_id',
  users: 'id',
};

/** What concerns everybody is stamped under this name. */
const everybody = '*';

/** Subjects looked for in one query. */
const subjectsAtOnce = 1_000;

interface Table {
  readonly name: string;
  readonly columns: readonly string[];
}

/**
 * Makes the triggers that are missing. In the store itself, so that no writer can forget them: neither code of this or an
 * older release, nor somebody with a shell. They are never dropped here; one too many stamps too often, which costs time.
 */
export async function watchFacts(db: Kysely<never>, schema?: string): Promise<void> {
  const isPostgres = db.getExecutor().adapter instanceof PostgresAdapter;
  const tables = (await db.introspection.getTables({ withInternalKyselyTables: true }))
    .filter((table) => !table.isView && (table.schema ?? schema) === schema)
    .map(({ name, columns }) => ({ name, columns: columns.map((column) => column.name) }))
    .filter(({ name }) => !Object.hasOwn(noFacts, name));
  const known = await readTriggers(db, isPostgres ? schema : undefined);
  const missing = tables
    .map(isPostgres ? postgresTriggers : sqliteTriggers)
    .map((triggers) => triggers.filter(({ name }) => !known.has(name)));
  if (missing.flat().length === 0) return;
  // PostgreSQL locks a table for it: never two at once, lest somebody who works on both waits for us as we do for them.
  for (const triggers of isPostgres ? missing : [missing.flat()]) {
    await db.transaction().execute(async (tx) => {
      if (isPostgres) await sql.raw(postgresFunction).execute(tx);
      for (const { name, text } of triggers) await sql.raw(text(name)).execute(tx);
    });
  }
}

async function readTriggers(db: Kysely<never>, schema: string | undefined): Promise<Set<string>> {
  const query =
    schema === undefined
      ? sql<{ name: string }>`select name from sqlite_master where type = 'trigger'`
      : sql<{ name: string }>`
          select tgname as name from pg_trigger join pg_class on pg_class.oid = tgrelid
          join pg_namespace on pg_namespace.oid = relnamespace
          where nspname = ${schema} and tgname like 'facts_%'`;
  const { rows } = await query.execute(db);
  return new Set(rows.map(({ name }) => name));
}

/** Which change of a table is heard of, and how it is said in SQL. */
interface Trigger {
  readonly name: string;
  readonly text: (name: string) => string;
}

function trigger(table: string, event: string, text: (name: string) => string): Trigger {
  // Another definition is another trigger: the same name means the same text.
  const digest = createHash('sha256').update(text('')).digest('hex').slice(0, 8);
  return { name: `facts_${table}_${event}_${digest}`, text };
}

/** True in SQL when an update changes more than what is not heard of. */
function changes({ name, columns }: Table, isOther: string): string {
  const counted = columns.filter((column) => !(onlyLater[name] ?? []).includes(column));
  return counted.map((column) => `old."${column}" ${isOther} new."${column}"`).join(' or ');
}

function sqliteTriggers(table: Table): Trigger[] {
  const { name } = table;
  const column = subjectColumns[name];
  const stamp = (row: 'old' | 'new') => {
    const subject = column === undefined ? `'${everybody}'` : `${row}."${column}"`;
    return `insert into fact_stamps (subject, stamp) values (${subject}, hex(randomblob(8)))
      on conflict (subject) do update set stamp = excluded.stamp;`;
  };
  const on = (event: string, condition: string, ...rows: ('old' | 'new')[]) =>
    trigger(
      name,
      event,
      (called) => `create trigger "${called}" after ${event} on "${name}" for each row ${condition}
        begin ${rows.map(stamp).join(' ')} end`,
    );
  return [
    on('insert', '', 'new'),
    on('update', `when ${changes(table, 'is not')}`, 'old', 'new'),
    on('delete', '', 'old'),
  ];
}

/**
 * Deferred: a stamp is locked from the end of its transaction to the commit, so that nobody who holds one waits for
 * anything else, and writers hinder each other no longer than they must.
 */
function postgresTriggers(table: Table): Trigger[] {
  const { name } = table;
  const call = `execute function note_facts('${subjectColumns[name] ?? everybody}')`;
  const deferred = 'deferrable initially deferred for each row';
  return [
    trigger(
      name,
      'rows',
      (called) =>
        `create constraint trigger "${called}" after insert or delete on "${name}" ${deferred} ${call}`,
    ),
    trigger(
      name,
      'update',
      (called) => `create constraint trigger "${called}" after update on "${name}" ${deferred}
        when (${changes(table, 'is distinct from')}) ${call}`,
    ),
    trigger(
      name,
      'truncate',
      (called) =>
        `create trigger "${called}" after truncate on "${name}" for each statement ${call}`,
    ),
  ];
}

/** A stamp never comes twice, also where a backup is restored: so it is no counter. */
const postgresFunction = `
  create or replace function note_facts() returns trigger language plpgsql as $$
  declare subjects text[] := array[]::text[];
  begin
    if tg_op = 'TRUNCATE' or tg_argv[0] = '${everybody}' then
      subjects := array['${everybody}'];
    else
      if tg_op <> 'INSERT' then subjects := subjects || (to_jsonb(old) ->> tg_argv[0]); end if;
      if tg_op <> 'DELETE' then subjects := subjects || (to_jsonb(new) ->> tg_argv[0]); end if;
    end if;
    execute format('insert into %I.fact_stamps (subject, stamp)
      select distinct subject, $2 from unnest($1) as subject order by subject
      on conflict (subject) do update set stamp = excluded.stamp', tg_table_schema)
    using subjects, md5(concat_ws(' ', random(), clock_timestamp(), txid_current(), pg_backend_pid()));
    return null;
  end $$`;

/** What was stamped last, by subject. */
export type FactStamps = ReadonlyMap<string, string>;

/**
 * The stamps of all that is known of these subjects. Facts that are read after their stamps were, hold as long as the
 * stamps are the same, but for what ends by itself with time.
 */
export async function readFactStamps(
  db: Reader | Tx,
  subjects: Iterable<string>,
): Promise<FactStamps> {
  const ids = [...new Set([everybody, ...subjects])];
  const stamps = new Map<string, string>();
  for (let at = 0; at < ids.length; at += subjectsAtOnce) {
    const rows = await db
      .selectFrom('factStamps')
      .selectAll()
      .where('subject', 'in', ids.slice(at, at + subjectsAtOnce))
      .execute();
    for (const { subject, stamp } of rows) stamps.set(subject, stamp);
  }
  return stamps;
}

/** One text for all stamps that facts about these subjects rest on. */
export function stampOf(stamps: FactStamps, ...subjects: readonly string[]): string {
  return [everybody, ...subjects].map((subject) => stamps.get(subject) ?? '').join(' ');
}
