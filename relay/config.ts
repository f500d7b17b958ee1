import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { isName, ZtnaError, type ExtraCheck } from '../protocol/index.ts';
import { ConfigReader, type ConfigValue } from './config-reader.ts';
import { readDuration } from './config-duration.ts';
import { readChecks } from './posture-checks.ts';
import { readSignals } from './signals-config.ts';
import type { SignalSettings } from './signal-settings.ts';

export const configFileName = 'relay.yaml';

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** What `relay.yaml` says, defaults filled in. */
export interface RelayConfig {
  /** `https://host:port`, as agents and connectors dial it. */
  readonly url: string;
  /** `postgres://…`, with its password where it has one; null for SQLite in the state directory. */
  readonly storeUrl: string | null;
  readonly listen: ListenAddress;
  /** Where probes and metrics are served; loopback only. */
  readonly adminListen: ListenAddress | null;
  /** Who may enrol a machine: with an administrator's code alone, or by signing in, at once or once it is approved. */
  readonly enrolmentMode: 'invite' | 'sso' | 'sso-approve';
  readonly maxDevicesPerUser: number;
  readonly session: { readonly idleMs: number; readonly absoluteMs: number };
  readonly verification: { readonly intervalMs: number; readonly holdMs: number };
  readonly posture: PostureConfig;
  /** How long tunnels may take to move to another relay when this one stops. */
  readonly drainMs: number;
  /** MaxMind files that say where addresses lie, by absolute path. */
  readonly risk: { readonly geo: { readonly city: string | null; readonly asn: string | null } };
  /** Apps with an interval or a hold of their own, by name. */
  readonly apps: Readonly<
    Record<string, { readonly intervalMs?: number; readonly holdMs?: number }>
  >;
  readonly signals: SignalSettings;
  /** The domain that passkeys are for, where that is one above the host of the url; null: the host itself. */
  readonly passkeyDomain: string | null;
  /** What browsers and other systems are shown, by absolute path; null: a certificate of our own CA. */
  readonly tls: { readonly certFile: string; readonly keyFile: string } | null;
}

/** What devices are asked to say of themselves. */
export interface PostureConfig {
  /** Older facts count as unknown. */
  readonly maxAgeMs: number;
  readonly checks: readonly ExtraCheck[];
}

const hourMs = 3_600_000;
const defaults = {
  maxDevicesPerUser: 3,
  idleMs: 12 * hourMs,
  absoluteMs: 24 * hourMs,
  intervalMs: 20_000,
  holdMs: 300_000,
  drainMs: 25_000,
  postureMaxAgeMs: 45_000,
} as const;

/** Reads `DIR/relay.yaml`. Throws ERR_CONFIG_NOT_FOUND, or as `parseRelayConfig`. */
export async function readRelayConfig(dir: string): Promise<RelayConfig> {
  const path = join(dir, configFileName);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
      message: `cannot read ${path}`,
      hint: `make a relay first: ztna-relay init --dir ${dir} --url https://HOST:PORT`,
      cause,
    });
  }
  return parseRelayConfig(text, path);
}

/**
 * Parses the text of `relay.yaml`. Throws ERR_CONFIG_INVALID for what cannot be read and for unknown keys,
 * ERR_CONFIG_NOT_AVAILABLE for keys that do nothing yet; both name file and line.
 */
export function parseRelayConfig(text: string, file = configFileName): RelayConfig {
  const reader = new ConfigReader(file);
  const root = reader.parse(text);
  const top = reader.members(
    root,
    [
      'url',
      'listen',
      'adminListen',
      'store',
      'enrolment',
      'session',
      'verification',
      'apps',
      'posture',
      'drainFor',
      'risk',
      'signals',
      'tls',
      'passkeys',
    ],
    ['proxyProtocol', 'audit'],
  );
  if (!top.url) throw reader.invalid(root, 'must have a url', 'add: url: https://HOST:PORT');
  const url = readUrl(reader, top.url);
  const enrolment = reader.members(top.enrolment, ['mode', 'maxDevicesPerUser']);
  const storeUrl = top.store ? readStore(reader, top.store) : null;
  const session = reader.members(top.session, ['idle', 'absolute']);
  const idleMs = readDuration(reader, session.idle, defaults.idleMs, 60_000, 400 * 24 * hourMs);
  return {
    url,
    storeUrl,
    listen: top.listen
      ? readListen(reader, top.listen)
      : { host: '0.0.0.0', port: Number(new URL(url).port || 443) },
    adminListen: top.adminListen ? readAdminListen(reader, top.adminListen) : null,
    enrolmentMode: enrolment.mode ? readEnrolmentMode(reader, enrolment.mode) : 'invite',
    maxDevicesPerUser: readCount(reader, enrolment.maxDevicesPerUser, defaults.maxDevicesPerUser),
    session: {
      idleMs,
      absoluteMs: readDuration(
        reader,
        session.absolute,
        Math.max(defaults.absoluteMs, idleMs),
        60_000,
        400 * 24 * hourMs,
      ),
    },
    verification: {
      intervalMs: defaults.intervalMs,
      holdMs: defaults.holdMs,
      ...readVerification(reader, top.verification),
    },
    posture: readPosture(reader, top.posture),
    drainMs: readDuration(reader, top.drainFor, defaults.drainMs, 1_000, 600_000),
    risk: readRisk(reader, top.risk, dirname(file)),
    apps: readApps(reader, top.apps),
    signals: readSignals(reader, top.signals),
    tls: readTls(reader, top.tls, dirname(file)),
    passkeyDomain: readPasskeyDomain(reader, top.passkeys, new URL(url).hostname),
  };
}

function readEnrolmentMode(reader: ConfigReader, value: ConfigValue): RelayConfig['enrolmentMode'] {
  const mode = reader.text(value);
  if (mode === 'invite' || mode === 'sso' || mode === 'sso-approve') return mode;
  throw reader.invalid(value, 'must be invite, sso or sso-approve');
}

/** `sqlite` or the URL of a PostgreSQL server, which no error repeats: it may hold a password. */
function readStore(reader: ConfigReader, value: ConfigValue): string | null {
  const text = reader.text(value);
  if (text === 'sqlite') return null;
  if (!/^postgres(?:ql)?:\/\//.test(text)) {
    throw reader.invalid(value, 'must be sqlite or postgres://USER@HOST/DATABASE');
  }
  return text;
}

/** `https://HOST[:PORT]`, without a path, as a URL that ends in its port. */
function readUrl(reader: ConfigReader, value: ConfigValue): string {
  const text = reader.text(value);
  if (!/^https:\/\/[^\s/?#@]+\/?$/.test(text) || !URL.canParse(text)) {
    throw reader.invalid(value, 'must have the form https://HOST:PORT');
  }
  return text.replace(/\/$/, '');
}

/**
 * `ADDR:PORT`, `[ADDR]:PORT` or `PORT`, which means every address. Undefined for anything else; port 0 lets the
 * system choose.
 */
export function parseListenAddress(text: string): ListenAddress | undefined {
  const match = /^(?:(?:\[([^\]]+)\]|([^:[\]]+)):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[3] ?? Number.NaN);
  const host = match?.[1] ?? match?.[2] ?? '0.0.0.0';
  if (!(port <= 65_535) || (isIP(host) === 0 && host !== 'localhost')) return undefined;
  return { host, port };
}

function readListen(reader: ConfigReader, value: ConfigValue): ListenAddress {
  const address = parseListenAddress(reader.text(value));
  if (!address) throw reader.invalid(value, 'must have the form ADDR:PORT');
  return address;
}

function readAdminListen(reader: ConfigReader, value: ConfigValue): ListenAddress {
  const text = reader.text(value);
  const address = parseListenAddress(/^\d+$/.test(text) ? `127.0.0.1:${text}` : text);
  if (!address) throw reader.invalid(value, 'must have the form 127.0.0.1:PORT');
  if (!isLoopback(address.host)) throw reader.invalid(value, 'must be a loopback address');
  return address;
}

/** True for addresses that only this machine reaches. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

function readCount(reader: ConfigReader, value: ConfigValue | undefined, fallback: number): number {
  if (!value) return fallback;
  const text = reader.text(value);
  const count = Number(text);
  if (!/^\d{1,6}$/.test(text) || count < 1) throw reader.invalid(value, 'must be a number from 1');
  return count;
}

function readVerification(
  reader: ConfigReader,
  value: ConfigValue | undefined,
): RelayConfig['apps'][string] {
  const { interval, holdFor } = reader.members(value, ['interval', 'holdFor']);
  return {
    ...(interval ? { intervalMs: readDuration(reader, interval, 0, 1_000, 20_000) } : {}),
    ...(holdFor ? { holdMs: readDuration(reader, holdFor, 0, 1_000, hourMs) } : {}),
  };
}

/** Files are named from where `relay.yaml` lies. */
function readRisk(
  reader: ConfigReader,
  value: ConfigValue | undefined,
  dir: string,
): RelayConfig['risk'] {
  const geo = reader.members(reader.members(value, ['geo']).geo, ['city', 'asn']);
  const path = (file: ConfigValue | undefined) => (file ? resolve(dir, reader.text(file)) : null);
  return { geo: { city: path(geo.city), asn: path(geo.asn) } };
}

function readTls(
  reader: ConfigReader,
  value: ConfigValue | undefined,
  dir: string,
): RelayConfig['tls'] {
  if (!value) return null;
  const { cert, key } = reader.members(value, ['cert', 'key']);
  if (!cert || !key) throw reader.invalid(value, 'must have a cert and a key');
  const path = (file: ConfigValue) => resolve(dir, reader.text(file).replace(/^file:(?=\/)/, ''));
  return { certFile: path(cert), keyFile: path(key) };
}

/** Browsers take a passkey of a domain to every host below it, and to no other. */
function readPasskeyDomain(
  reader: ConfigReader,
  value: ConfigValue | undefined,
  host: string,
): string | null {
  const { domain } = reader.members(value, ['domain']);
  if (!domain) return null;
  const text = reader.text(domain).toLowerCase();
  const isAbove = host === text || (host.endsWith(`.${text}`) && text.includes('.'));
  if (!isAbove || isIP(text) !== 0) {
    throw reader.invalid(domain, `must be ${host} or a domain above it`);
  }
  return text;
}

function readApps(reader: ConfigReader, value: ConfigValue | undefined): RelayConfig['apps'] {
  const apps: Record<string, RelayConfig['apps'][string]> = {};
  for (const entry of reader.entries(value)) {
    if (!isName(entry.name)) throw reader.invalid(entry, 'is not the name of an app');
    const app = reader.members(entry, ['verification']);
    if (!app.verification) throw reader.invalid(entry, 'must have a verification');
    apps[entry.name] = readVerification(reader, app.verification);
  }
  return apps;
}

function readPosture(reader: ConfigReader, value: ConfigValue | undefined): PostureConfig {
  const { maxAge, checks } = reader.members(value, ['maxAge', 'checks']);
  return {
    maxAgeMs: readDuration(reader, maxAge, defaults.postureMaxAgeMs, 3_000, hourMs),
    checks: readChecks(reader, checks),
  };
}
