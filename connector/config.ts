import {
  isMap,
  isScalar,
  LineCounter,
  parseDocument,
  type Pair,
  type ParsedNode,
  type YAMLMap,
} from 'yaml';
import { nearestWord, parseDurationMs } from '../protocol/host/index.ts';
import { toZtnaError, ZtnaError } from '../protocol/index.ts';
import { defaultCheck, type CheckOptions } from './app-check.ts';
import { checkAppName, type AppMap, type PublishedApp } from './app-map.ts';
import { defaultDrainForMs, maxApps, maxDrainForMs } from './limits.ts';
import { parseTarget, type Target } from './target.ts';

/** What `connector.yaml` says, defaults filled in. */
export interface ConnectorConfig {
  readonly apps: AppMap;
  /** How long a stop waits for tunnels that are in use. */
  readonly drainForMs: number;
}

/** What holds without a file. */
export const emptyConfig: ConnectorConfig = { apps: new Map(), drainForMs: defaultDrainForMs };

/**
 * Reads the text of `connector.yaml`. Everything unknown is an error with its line.
 * Throws ERR_CONFIG_INVALID or ERR_CONFIG_NOT_AVAILABLE.
 */
export function parseConfig(text: string, fileName: string): ConnectorConfig {
  return new Reader(text, fileName).config();
}

type Entry = Pair<ParsedNode, ParsedNode | null>;

class Reader {
  readonly #fileName: string;
  readonly #lines = new LineCounter();
  readonly #text: string;

  constructor(text: string, fileName: string) {
    this.#text = text;
    this.#fileName = fileName;
  }

  config(): ConnectorConfig {
    const document = parseDocument(this.#text, {
      lineCounter: this.#lines,
      merge: false,
      version: '1.2',
    });
    const syntax = document.errors[0] ?? document.warnings[0];
    if (syntax) {
      throw this.#at(syntax.pos[0], syntax.message.split('\n')[0] ?? 'this is not YAML');
    }
    const top = document.contents;
    if (isEmpty(top)) return emptyConfig;
    if (!isMap(top)) throw this.#at(top.range[0], 'expected a line such as "apps:"');
    const { apps, drainFor } = this.#members(top, ['apps', 'drainFor']);
    return {
      apps: apps ? this.#apps(apps) : emptyConfig.apps,
      drainForMs: drainFor ? this.#duration(drainFor, 0, maxDrainForMs) : emptyConfig.drainForMs,
    };
  }

  #apps({ value }: Entry): AppMap {
    const apps = new Map<string, PublishedApp>();
    if (isEmpty(value)) return apps;
    if (!isMap(value)) throw this.#at(value.range[0], 'apps holds lines such as "wiki: tcp://…"');
    if (value.items.length > maxApps) throw this.#at(value.range[0], `at most ${maxApps} apps`);
    for (const entry of value.items as Entry[]) {
      const name = wordOf(entry.key) ?? '';
      checkAppName(name, `${this.#fileName} line ${this.#line(entry.key.range[0])}`);
      apps.set(name, this.#app(name, entry));
    }
    return apps;
  }

  #app(name: string, entry: Entry): PublishedApp {
    if (!isMap(entry.value)) {
      return { target: this.#target(name, entry), check: defaultCheck };
    }
    const { target, health } = this.#members(entry.value, ['target', 'health']);
    if (!target) throw this.#at(entry.key.range[0], `${name} needs a target, tcp://HOST:PORT`);
    return {
      target: this.#target(name, target),
      check: health ? this.#check(health) : defaultCheck,
    };
  }

  #target(name: string, entry: Entry): Target {
    const text = wordOf(entry.value);
    const offset = entry.key.range[0];
    if (text === undefined) throw this.#at(offset, `${name} needs a target, tcp://HOST:PORT`);
    return this.#locate(offset, name, () => parseTarget(text));
  }

  #check({ key, value }: Entry): CheckOptions | null {
    if (wordOf(value) === 'off') return null;
    if (!isMap(value)) {
      const hint = 'as in health: { http: /healthz, interval: 10s, timeout: 2s }';
      throw this.#at(key.range[0], 'health is off, or says how to check', hint);
    }
    const { http, interval, timeout } = this.#members(value, ['http', 'interval', 'timeout']);
    const intervalMs = interval
      ? this.#duration(interval, 1_000, 3_600_000)
      : defaultCheck.intervalMs;
    const timeoutMs = timeout ? this.#duration(timeout, 100, 30_000) : defaultCheck.timeoutMs;
    return { httpPath: http ? this.#path(http) : null, intervalMs, timeoutMs };
  }

  #path({ key, value }: Entry): string {
    const path = wordOf(value) ?? '';
    if (/^\/[\x21-\x22\x24-\x7e]{0,255}$/.test(path)) return path;
    throw this.#at(key.range[0], 'http is the path to ask for', 'as in http: /healthz');
  }

  #duration({ key, value }: Entry, minMs: number, maxMs: number): number {
    const [offset] = key.range;
    const text = wordOf(value);
    const word = wordOf(key) ?? '';
    if (text === undefined) throw this.#at(offset, `${word} is a time`, `as in ${word}: 10s`);
    const ms = this.#locate(offset, word, () => parseDurationMs(text));
    if (ms >= minMs && ms <= maxMs) return ms;
    throw this.#at(offset, `${word}: from ${minMs} ms to ${maxMs / 1_000} s`);
  }

  /** The members of a map by name; one that is not known is an error. */
  #members<K extends string>(map: YAMLMap.Parsed, known: readonly K[]): Partial<Record<K, Entry>> {
    const members: Partial<Record<K, Entry>> = {};
    for (const entry of map.items as Entry[]) {
      const word = wordOf(entry.key);
      const key = known.find((name) => name === word);
      if (key === undefined) {
        const near = nearestWord(word ?? '', [...known]);
        const hint = near === undefined ? undefined : `did you mean ${near}?`;
        throw this.#at(entry.key.range[0], `unknown key "${word ?? '?'}"`, hint);
      }
      members[key] = entry;
    }
    return members;
  }

  /** What `read` throws, with where it stood. */
  #locate<T>(offset: number, what: string, read: () => T): T {
    try {
      return read();
    } catch (thrown) {
      const { code, message, hint } = toZtnaError(thrown);
      throw this.#error(
        code === 'ERR_CONFIG_NOT_AVAILABLE' ? code : 'ERR_CONFIG_INVALID',
        offset,
        `${what}: ${message}`,
        hint,
      );
    }
  }

  #at(offset: number, message: string, hint?: string): ZtnaError {
    return this.#error('ERR_CONFIG_INVALID', offset, message, hint);
  }

  #error(code: ZtnaError['code'], offset: number, message: string, hint?: string): ZtnaError {
    return new ZtnaError(code, {
      message: `${this.#fileName} line ${this.#line(offset)}: ${message}`,
      ...(hint === undefined ? {} : { hint }),
    });
  }

  #line(offset: number): number {
    return this.#lines.linePos(offset).line;
  }
}

function isEmpty(node: ParsedNode | null): node is null {
  return node === null || (isScalar(node) && node.value === null);
}

function wordOf(node: ParsedNode | null): string | undefined {
  return isScalar(node) && typeof node.value === 'string' ? node.value : undefined;
}
