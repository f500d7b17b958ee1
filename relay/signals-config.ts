import { isName } from '../protocol/index.ts';
import { readDuration } from './config-duration.ts';
import type { ConfigReader, ConfigValue } from './config-reader.ts';
import type {
  OutsideSettings,
  ReceiveSettings,
  SignalSettings,
  SubjectSettings,
  TransmitSettings,
  WebhookSettings,
} from './signal-settings.ts';

const dayMs = 86_400_000;
const defaults = { pollEveryMs: 30_000, maxAgeMs: dayMs, riskMs: dayMs } as const;

/** No relay has more streams, receivers or webhooks. */
const maxEntries = 32;

/** Reads the `signals` section. Throws ERR_CONFIG_INVALID, naming the line. */
export function readSignals(reader: ConfigReader, value: ConfigValue | undefined): SignalSettings {
  const { receive, transmit, webhooks } = reader.members(value, [
    'receive',
    'transmit',
    'webhooks',
  ]);
  return {
    receive: readList(reader, receive, readReceive),
    transmit: readList(reader, transmit, readTransmit),
    webhooks: readList(reader, webhooks, readWebhook),
  };
}

function readList<T extends { readonly name: string }>(
  reader: ConfigReader,
  value: ConfigValue | undefined,
  read: (reader: ConfigReader, item: ConfigValue) => T,
): T[] {
  const items = reader.items(value);
  if (value && items.length > maxEntries)
    throw reader.invalid(value, 'must have 32 entries at most');
  const names = new Set<string>();
  return items.map((item) => {
    const entry = read(reader, item);
    if (names.has(entry.name)) throw reader.invalid(item, `is called ${entry.name} as another is`);
    names.add(entry.name);
    return entry;
  });
}

function readReceive(reader: ConfigReader, item: ConfigValue): ReceiveSettings {
  const all = reader.members(item, [
    ...(['name', 'issuer', 'audience', 'keys', 'push', 'poll', 'subjects'] as const),
    ...(['maxAge', 'riskFor', 'allowPrivate', 'ca'] as const),
  ]);
  const outside = {
    allowPrivate: readFlag(reader, all.allowPrivate),
    caFile: all.ca ? readFile(reader, all.ca) : null,
  };
  const push = all.push && reader.members(all.push, ['token']);
  const poll = all.poll && reader.members(all.poll, ['url', 'token', 'interval']);
  if (!push && !poll) throw reader.invalid(item, 'must have a push or a poll, or both');
  return {
    name: readName(reader, item, all.name),
    issuer: readText(reader, need(reader, item, all.issuer, 'issuer')),
    audience: readText(reader, need(reader, item, all.audience, 'audience')),
    keys: readKeys(reader, need(reader, item, all.keys, 'keys'), outside),
    pushTokenFile: push
      ? readFile(reader, need(reader, all.push ?? item, push.token, 'token'))
      : null,
    poll: poll
      ? {
          url: readUrl(reader, need(reader, all.poll ?? item, poll.url, 'url')),
          ...outside,
          tokenFile: readFile(reader, need(reader, all.poll ?? item, poll.token, 'token')),
          everyMs: readDuration(reader, poll.interval, defaults.pollEveryMs, 1_000, 3_600_000),
        }
      : null,
    subjects: readSubjects(reader, all.subjects),
    maxAgeMs: readDuration(reader, all.maxAge, defaults.maxAgeMs, 60_000, 7 * dayMs),
    riskMs: readDuration(reader, all.riskFor, defaults.riskMs, 60_000, 30 * dayMs),
  };
}

function readKeys(
  reader: ConfigReader,
  value: ConfigValue,
  outside: Omit<OutsideSettings, 'url'>,
): ReceiveSettings['keys'] {
  if (reader.text(value).startsWith('file:')) return { file: readFile(reader, value) };
  return { url: readUrl(reader, value), ...outside };
}

function readSubjects(reader: ConfigReader, value: ConfigValue | undefined): SubjectSettings {
  const { email, domains, map } = reader.members(value, ['email', 'domains', 'map']);
  const list = reader.items(domains).map((item) => {
    const domain = reader.text(item).toLowerCase();
    if (!isDomain(domain)) throw reader.invalid(item, 'must be a domain, as example.com');
    return domain;
  });
  const mode = email && reader.text(email);
  if (email && mode !== 'user_name' && mode !== 'local_part') {
    throw reader.invalid(email, 'must be user_name or local_part');
  }
  if (email && mode === 'local_part' && list.length === 0) {
    throw reader.invalid(
      email,
      'needs domains: else alice@anywhere would be alice',
      'add: domains: [example.com]',
    );
  }
  return {
    email: mode === 'user_name' || mode === 'local_part' ? mode : null,
    domains: list,
    mapFile: map ? readFile(reader, map) : null,
  };
}

function readTransmit(reader: ConfigReader, item: ConfigValue): TransmitSettings {
  const all = reader.members(item, [
    ...(['name', 'url', 'audience', 'token', 'emailDomain', 'allowPrivate', 'ca'] as const),
  ]);
  const emailDomain = all.emailDomain && reader.text(all.emailDomain).toLowerCase();
  if (all.emailDomain && !isDomain(emailDomain ?? '')) {
    throw reader.invalid(all.emailDomain, 'must be a domain, as example.com');
  }
  return {
    ...readOutside(reader, item, all),
    name: readName(reader, item, all.name),
    audience: readText(reader, need(reader, item, all.audience, 'audience')),
    tokenFile: all.token ? readFile(reader, all.token) : null,
    emailDomain: emailDomain ?? null,
  };
}

function readWebhook(reader: ConfigReader, item: ConfigValue): WebhookSettings {
  const all = reader.members(item, ['name', 'url', 'secret', 'allowPrivate', 'ca']);
  return {
    ...readOutside(reader, item, all),
    name: readName(reader, item, all.name),
    secretFile: readFile(reader, need(reader, item, all.secret, 'secret')),
  };
}

function readOutside(
  reader: ConfigReader,
  item: ConfigValue,
  all: Partial<Record<'url' | 'allowPrivate' | 'ca', ConfigValue>>,
): OutsideSettings {
  return {
    url: readUrl(reader, need(reader, item, all.url, 'url')),
    allowPrivate: readFlag(reader, all.allowPrivate),
    caFile: all.ca ? readFile(reader, all.ca) : null,
  };
}

function need(
  reader: ConfigReader,
  item: ConfigValue,
  value: ConfigValue | undefined,
  name: string,
): ConfigValue {
  if (value) return value;
  throw reader.invalid(item, `must have a ${name}`);
}

function readName(reader: ConfigReader, item: ConfigValue, value: ConfigValue | undefined): string {
  const name = reader.text(need(reader, item, value, 'name'));
  if (isName(name) && !name.includes('@')) return name;
  throw reader.invalid(value ?? item, 'must be lower-case letters, digits, ".", "_" and "-"');
}

/** Issuers and audiences are compared as they are written. */
function readText(reader: ConfigReader, value: ConfigValue): string {
  const text = reader.text(value);
  if (text.length <= 512 && !/\s/.test(text)) return text;
  throw reader.invalid(value, 'must be at most 512 characters without spaces');
}

function readUrl(reader: ConfigReader, value: ConfigValue): string {
  const url = URL.canParse(reader.text(value)) ? new URL(reader.text(value)) : undefined;
  if (url?.protocol === 'https:' && url.username === '' && url.password === '') return url.href;
  throw reader.invalid(value, 'must begin with https:// and hold no password');
}

/** Files are named `file:/PATH`: a secret itself has no place in relay.yaml. */
function readFile(reader: ConfigReader, value: ConfigValue): string {
  const text = reader.text(value);
  if (/^file:\/.+/.test(text)) return text.slice('file:'.length);
  throw reader.invalid(value, 'must have the form file:/PATH');
}

function readFlag(reader: ConfigReader, value: ConfigValue | undefined): boolean {
  const text = value ? reader.text(value) : 'false';
  if (value && text !== 'true' && text !== 'false') {
    throw reader.invalid(value, 'must be true or false');
  }
  return text === 'true';
}

function isDomain(text: string): boolean {
  return /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+$/.test(
    text,
  );
}
