import { PostgresAdapter, sql, type Kysely } from 'kysely';
import type { Migration } from 'kysely/migration';

/**
 * The schema, as a list that only grows: a released migration is never edited. Plain SQL types that SQLite
 * and PostgreSQL share (text, integer, bigint), so that one list serves both.
 */
export const migrations: Record<string, Migration> = {
  '0001_first': { up: createFirstTables },
  '0002_resume': { up: letTunnelsResume },
  '0003_relays': { up: describeRelays },
  '0004_control_planes': { up: shareTunnels },
  '0005_replaced': { up: rememberReplaced },
  '0006_granted_relays': { up: rememberGrantedRelays },
  '0007_signals': { up: keepSignals },
  '0008_posture': { up: hearPosture },
  '0009_compliance': { up: tellCompliance },
  '0010_fact_stamps': { up: stampFacts },
  '0011_identity': { up: knowIdentities },
};

/** Tunnels of before are of version 1, which end with their path. */
async function letTunnelsResume(db: Kysely<unknown>): Promise<void> {
  const statements = [
    `alter table tunnels add column version bigint not null default 1`,
    `alter table tunnels add column hold_ms bigint not null default 0`,
    `alter table tunnels add column detached_at_ms bigint`,
    `alter table tunnels add column close_code text`,
  ];
  await runStatements(db, statements);
}

async function rememberReplaced(db: Kysely<unknown>): Promise<void> {
  await runStatements(db, [
    `alter table connectors add column replaced_json text not null default '[]'`,
  ]);
}

/** Of tunnels from before, only the one relay that is known to carry them counts. */
async function rememberGrantedRelays(db: Kysely<unknown>): Promise<void> {
  await runStatements(db, [
    `alter table tunnels add column relays_json text not null default '[]'`,
  ]);
}

/** Events of others, and those that we tell others of. */
async function keepSignals(db: Kysely<unknown>): Promise<void> {
  await runStatements(db, [
    `alter table devices add column restricted_json text not null default '[]'`,
    `create table signal_streams (
      name text primary key, last_event_at_ms bigint, last_verified_at_ms bigint, status text,
      last_error text, accepted bigint not null default 0, refused bigint not null default 0,
      poller text, poll_until_ms bigint not null default 0)`,
    `create table signal_tokens (
      stream text not null, jti text not null, digest text not null, expires_at_ms bigint not null,
      primary key (stream, jti))`,
    `create index signal_tokens_by_end on signal_tokens (expires_at_ms)`,
    `create table signal_marks (
      stream text not null, kind text not null, subject_kind text not null, subject_id text not null,
      points integer not null, active integer not null, happened_at_ms bigint not null,
      until_ms bigint not null, primary key (stream, kind, subject_kind, subject_id))`,
    `create index signal_marks_by_subject on signal_marks (subject_id)`,
    `create table signal_outbox (
      id text primary key, target text not null, event text not null, body_json text not null,
      attempts integer not null default 0, next_at_ms bigint not null,
      claimed_until_ms bigint not null default 0, last_error text, dead integer not null default 0,
      created_at_ms bigint not null)`,
    `create index signal_outbox_by_turn on signal_outbox (dead, next_at_ms)`,
    `create index signal_outbox_by_target on signal_outbox (target, dead, created_at_ms)`,
  ]);
}

/** Devices tell their posture, users have habits, and tunnels are held back by both. */
async function hearPosture(db: Kysely<unknown>): Promise<void> {
  await runStatements(db, [
    `create table postures (
      device_id text primary key references devices (id) on delete cascade, facts_json text not null,
      at_ms bigint not null)`,
    `create table risk_profiles (
      user_id text primary key references users (id) on delete cascade, profile_json text not null,
      updated_at_ms bigint not null)`,
    `alter table tunnels add column suspended_for text`,
    `alter table tunnels add column suspension_fix text`,
  ]);
}

/** Others are told once when a device becomes unhealthy, and once when it is mended. */
async function tellCompliance(db: Kysely<unknown>): Promise<void> {
  await runStatements(db, [`alter table devices add column unhealthy integer not null default 0`]);
}

/** What the triggers write that `watchFacts` makes. */
async function stampFacts(db: Kysely<unknown>): Promise<void> {
  await runStatements(db, [
    `create table fact_stamps (subject text primary key, stamp text not null)`,
  ]);
}

/** Users of other directories, second factors that cannot be phished, machines, and whoever keeps users in step. */
async function knowIdentities(db: Kysely<unknown>): Promise<void> {
  await runStatements(db, [
    `alter table users add column kind text not null default 'person'`,
    `alter table users add column provider text`,
    `alter table users add column subject text`,
    `alter table users add column external_id text`,
    `alter table users add column display_name text`,
    `create unique index users_by_subject on users (provider, subject)`,
    `alter table groups add column external_id text`,
    `alter table users add column provisioned_by text`,
    `alter table users add column disabled_by_json text not null default '[]'`,
    `alter table groups add column provisioned_by text`,
    `alter table groups add column display_name text`,
    `alter table sessions add column address text not null default ''`,
    `alter table sessions add column acr text not null default ''`,
    `create table provided_memberships (
      user_id text not null references users (id) on delete cascade,
      group_id text not null references groups (id) on delete cascade,
      source text not null, created_at_ms bigint not null, primary key (user_id, group_id, source))`,
    `create index provided_memberships_by_group on provided_memberships (group_id)`,
    `create table providers (
      name text primary key, settings_json text not null, sealed_secret text,
      created_at_ms bigint not null)`,
    `create table sign_ins (
      id text primary key, purpose text not null, device_id text, provider text,
      challenge text not null, loopback_port integer, loopback_state text, passkey_challenge text,
      is_step_up integer not null default 0,
      state text not null, sealed_state text, sealed_proof text, ticket_hash text unique,
      error_code text, error_reason text, address text not null, created_at_ms bigint not null,
      expires_at_ms bigint not null)`,
    `create index sign_ins_by_end on sign_ins (expires_at_ms)`,
    `create table provider_grants (
      session_id text primary key references sessions (id) on delete cascade,
      user_id text not null references users (id) on delete cascade, provider text not null,
      subject text not null, sid text, sealed_tokens text not null, next_check_at_ms bigint not null,
      last_ok_at_ms bigint not null, last_error text, unreachable_since_ms bigint,
      claimed_until_ms bigint not null default 0)`,
    `create index provider_grants_by_turn on provider_grants (next_check_at_ms)`,
    `create index provider_grants_by_subject on provider_grants (provider, subject)`,
    `create table passkeys (
      id text primary key, user_id text not null references users (id) on delete cascade,
      name text not null, public_key text not null, counter bigint not null,
      transports_json text not null, backed_up integer not null, created_at_ms bigint not null,
      last_used_at_ms bigint)`,
    `create index passkeys_by_user on passkeys (user_id)`,
    `create table recovery_codes (
      user_id text not null references users (id) on delete cascade, hash text not null,
      used_at_ms bigint, created_at_ms bigint not null, primary key (user_id, hash))`,
    `create table browser_sessions (
      token_hash text primary key, user_id text not null references users (id) on delete cascade,
      provider text not null, methods_json text not null, address text not null, challenge text,
      created_at_ms bigint not null, expires_at_ms bigint not null)`,
    `create table service_credentials (
      id text primary key, user_id text not null references users (id) on delete cascade,
      kind text not null, public_key text, settings_json text not null, created_at_ms bigint not null,
      last_used_at_ms bigint)`,
    `create index service_credentials_by_user on service_credentials (user_id)`,
    `create table scim_tokens (
      id text primary key, name text not null unique, secret_hash text not null unique,
      provider text, created_at_ms bigint not null, last_used_at_ms bigint)`,
  ]);
}

async function createFirstTables(db: Kysely<unknown>): Promise<void> {
  const statements = [
    `create table users (
      id text primary key, name text not null unique, role text, disabled integer not null default 0,
      password_hash text, expires_at_ms bigint, created_at_ms bigint not null)`,
    `create table groups (
      id text primary key, name text not null unique, created_at_ms bigint not null)`,
    `create table memberships (
      user_id text not null references users (id) on delete cascade,
      group_id text not null references groups (id) on delete cascade,
      until_ms bigint, created_at_ms bigint not null, primary key (user_id, group_id))`,
    `create index memberships_by_group on memberships (group_id)`,
    `create table sites (
      id text primary key, name text not null unique, created_at_ms bigint not null)`,
    `create table apps (
      id text primary key, name text not null unique, site_id text not null references sites (id),
      kind text not null, port_hint integer, labels_json text not null, created_at_ms bigint not null)`,
    `create index apps_by_site on apps (site_id)`,
    `create table connectors (
      id text primary key, name text not null, site_id text not null references sites (id),
      signing_key text not null unique, noise_key text not null unique, certificate_serial text,
      certificate_not_after_ms bigint, instance text, state text not null, created_at_ms bigint not null,
      last_seen_at_ms bigint)`,
    `create index connectors_by_site on connectors (site_id)`,
    `create table devices (
      id text primary key, user_id text not null references users (id), hostname text not null,
      platform text not null, signing_key text not null unique, noise_key text not null unique,
      certificate_serial text, certificate_not_after_ms bigint, state text not null,
      created_at_ms bigint not null, last_seen_at_ms bigint)`,
    `create index devices_by_user on devices (user_id)`,
    `create table relays (
      id text primary key, name text not null unique, url text not null, state text not null,
      certificate_serial text, certificate_not_after_ms bigint, created_at_ms bigint not null,
      last_seen_at_ms bigint)`,
    `create table invites (
      id text primary key, kind text not null, subject text not null,
      site_id text references sites (id) on delete cascade,
      secret_hash text not null unique, uses_left integer not null, expires_at_ms bigint not null,
      revoked integer not null default 0, details_json text not null, created_at_ms bigint not null)`,
    `create table sessions (
      id text primary key, user_id text not null references users (id),
      device_id text not null references devices (id), provider text not null, methods_json text not null,
      authenticated_at_ms bigint not null, created_at_ms bigint not null, last_seen_at_ms bigint not null,
      idle_ms bigint not null, absolute_end_at_ms bigint not null, ended_at_ms bigint, end_reason text)`,
    `create index sessions_by_user on sessions (user_id, device_id)`,
    `create index sessions_by_device on sessions (device_id, ended_at_ms)`,
    `create table totp_secrets (
      user_id text primary key references users (id) on delete cascade, secret text not null,
      confirmed integer not null default 0, last_used_step bigint not null default 0,
      created_at_ms bigint not null)`,
    `create table policies (
      version bigint primary key, texts_json text not null, digest text not null, actor text not null,
      activated_at_ms bigint not null)`,
    `create table decisions (
      id text primary key, user_id text not null, device_id text not null, session_id text, app_id text,
      app_name text not null, tunnel_id text, verdict text not null, reasons_json text not null,
      errors_json text not null, inputs_json text not null, input_digest text not null,
      policy_version bigint not null, decided_at_ms bigint not null, confirmations bigint not null default 0,
      last_confirmed_at_ms bigint not null)`,
    `create index decisions_by_time on decisions (decided_at_ms)`,
    `create index decisions_by_user on decisions (user_id, decided_at_ms)`,
    `create table tunnels (
      id text primary key, user_id text not null, session_id text not null, device_id text not null,
      app_id text not null, connector_id text not null, instance text not null, relay_id text,
      decision_id text not null, generation bigint not null, fencing bigint not null, state text not null,
      grant_expires_at_ms bigint not null, until_ms bigint not null, opened_at_ms bigint,
      closed_at_ms bigint, close_reason text, bytes_up bigint not null default 0,
      bytes_down bigint not null default 0, created_at_ms bigint not null)`,
    `create index tunnels_by_state on tunnels (state)`,
    `create index tunnels_by_device on tunnels (device_id, state)`,
    `create index tunnels_by_user on tunnels (user_id, state)`,
    `create index tunnels_by_time on tunnels (created_at_ms)`,
    `create table revocations (
      incarnation bigint not null, position bigint not null, action text not null,
      subject_kind text not null, subject_id text not null, reason text not null, at_ms bigint not null,
      primary key (incarnation, position))`,
    `create index revocations_by_subject on revocations (subject_id, incarnation, position)`,
    `create table audit (
      writer text not null, position bigint not null, at_ms bigint not null, actor text not null,
      action text not null, subject text not null, outcome text not null, ref text, user_name text,
      app_name text, details_json text not null, previous text not null, hash text not null,
      primary key (writer, position))`,
    `create index audit_by_time on audit (at_ms)`,
    `create table checkpoints (
      writer text not null, position bigint not null, hash text not null, at_ms bigint not null,
      statement text not null, primary key (writer, position))`,
    `create table meta (key text primary key, value text not null)`,
  ];
  await runStatements(db, statements);
}

/**
 * Carries out the statements of a migration. Text is compared byte by byte in every store: by default PostgreSQL goes by
 * a language, whose rules change with its operating system.
 */
async function runStatements(db: Kysely<unknown>, statements: readonly string[]): Promise<void> {
  const isPostgres = db.getExecutor().adapter instanceof PostgresAdapter;
  for (const statement of statements) {
    const text = isPostgres ? statement.replaceAll(/ text\b/g, ' text collate "C"') : statement;
    await sql.raw(text).execute(db);
  }
}

/** Tunnels get an owner among several control planes. */
async function shareTunnels(db: Kysely<unknown>): Promise<void> {
  await runStatements(db, [
    `create table control_planes (
      id text primary key, fencing bigint not null, last_seen_at_ms bigint not null)`,
    `create table connector_links (
      control_plane text not null, connector_id text not null, instance text not null,
      primary key (control_plane, connector_id))`,
    `create index connector_links_by_connector on connector_links (connector_id)`,
    `alter table tunnels add column owner text`,
    `create index tunnels_by_owner on tunnels (owner, state)`,
    `create index tunnels_by_session on tunnels (session_id, state)`,
    `create index tunnels_by_app on tunnels (app_id, state)`,
    `create index tunnels_by_connector on tunnels (connector_id, state)`,
  ]);
}

/** Until then there was one relay, with the control plane. */
async function describeRelays(db: Kysely<unknown>): Promise<void> {
  const statements = [
    `alter table relays add column is_control integer not null default 0`,
    `alter table relays add column is_draining integer not null default 0`,
    `update relays set is_control = 1`,
  ];
  await runStatements(db, statements);
}
