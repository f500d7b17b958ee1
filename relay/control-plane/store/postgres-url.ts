import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { nearestWord, readSecretFile } from '../../../protocol/host/index.ts';
import { ZtnaError } from '../../../protocol/index.ts';
import type { ClientConfig } from 'pg';

/** Where a PostgreSQL store is and how it is reached. */
export interface PostgresTarget {
  /** For `pg`; holds the password. */
  readonly connection: Readonly<ClientConfig>;
  /** The schema that holds the tables. */
  readonly schema: string;
  /** `host:port/database`, for logs. */
  readonly label: string;
}

const parameters = [
  'host',
  'passwordfile',
  'schema',
  'sslcert',
  'sslkey',
  'sslmode',
  'sslrootcert',
] as const;
type Parameter = (typeof parameters)[number];

const defaultSchema = 'ztna';

/** True for what is meant as the URL of a PostgreSQL server. */
export function isPostgresUrl(text: string): boolean {
  return /^postgres(?:ql)?:\/\//.test(text);
}

/**
 * Reads `postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?sslmode=…&sslrootcert=…&schema=…]`. Without a password, that
 * of `passwordfile`, of PGPASSWORD or of PGPASSFILE counts. TLS verifies host and certificate unless the server is on
 * this machine or `sslmode` says otherwise. Throws ERR_CONFIG_INVALID; no error repeats the URL.
 */
export async function readPostgresUrl(text: string): Promise<PostgresTarget> {
  if (!isPostgresUrl(text) || !URL.canParse(text)) {
    throw invalid('must have the form postgres://USER@HOST/DATABASE');
  }
  const url = new URL(text);
  const given = readParameters(url);
  const host = given.host ?? decode(url.hostname).replace(/^\[|\]$/g, '');
  const user = decode(url.username);
  const database = decode(url.pathname.slice(1));
  if (host === '' || user === '' || database === '') {
    throw invalid('must name user, host and database');
  }
  const schema = given.schema ?? defaultSchema;
  if (!/^[a-z_][a-z0-9_]{0,40}$/.test(schema) || schema.startsWith('pg_')) {
    throw invalid('has a schema that is no plain lower-case name');
  }
  const port = Number(url.port === '' ? 5432 : url.port);
  const password =
    given.passwordfile === undefined
      ? decode(url.password)
      : (await readSecretFile(given.passwordfile)).replace(/\r?\n$/, '');
  return {
    connection: {
      host,
      port,
      user,
      database,
      ...(password === '' ? {} : { password }),
      ssl: await readTls(given, host),
      // Whoever waits for a lock must then see what its holder wrote, whatever is usual in that database.
      options: `-c search_path=${schema} -c client_min_messages=warning -c default_transaction_isolation=read\\ committed`,
      application_name: 'ztna-relay',
    },
    schema,
    label: `${host}:${String(port)}/${database}`,
  };
}

function readParameters(url: URL): Partial<Record<Parameter, string>> {
  const given: Partial<Record<Parameter, string>> = {};
  for (const [name, value] of url.searchParams) {
    if (!parameters.includes(name as Parameter)) {
      const near = nearestWord(name, [...parameters]);
      throw invalid(
        `has a parameter that is not known`,
        near === undefined ? `known: ${parameters.join(', ')}` : `did you mean ${near}?`,
      );
    }
    given[name as Parameter] = value;
  }
  return given;
}

async function readTls(
  given: Partial<Record<Parameter, string>>,
  host: string,
): Promise<ClientConfig['ssl']> {
  const isLocal =
    host.startsWith('/') ||
    host === 'localhost' ||
    host === '::1' ||
    (isIP(host) === 4 && host.startsWith('127.'));
  const mode = given.sslmode ?? (isLocal ? 'disable' : 'verify-full');
  if (mode === 'disable') return false;
  if (mode !== 'verify-full' && mode !== 'verify-ca') {
    // Whoever can stand in for the store can grant everything.
    throw invalid(
      'may only say sslmode=verify-full, verify-ca or disable',
      'name the certificate authority of the server: sslmode=verify-full&sslrootcert=/path/ca.pem',
    );
  }
  const read = (path: string | undefined) =>
    path === undefined ? Promise.resolve(undefined) : readPem(path);
  const [ca, cert] = [await read(given.sslrootcert), await read(given.sslcert)];
  const key = given.sslkey === undefined ? undefined : await readSecretFile(given.sslkey);
  return {
    rejectUnauthorized: true,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(mode === 'verify-ca' ? { checkServerIdentity: () => undefined } : {}),
  };
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `cannot read ${path}`, cause });
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid('has a % that is followed by no number');
  }
}

/** Never with the URL or a cause that quotes it: it may hold the password. */
function invalid(what: string, hint?: string): ZtnaError {
  return new ZtnaError('ERR_CONFIG_INVALID', {
    message: `the store's URL ${what}`,
    ...(hint === undefined ? {} : { hint }),
  });
}
