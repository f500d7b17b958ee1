import { isDeepStrictEqual } from 'node:util';
import { isName, ZtnaError, type AppId } from '../protocol/index.ts';
import { defaultCheck, type CheckOptions } from './app-check.ts';
import { maxApps } from './limits.ts';
import { isSameTarget, parseTarget, type Target } from './target.ts';
import type { Logger } from '../protocol/host/index.ts';

/** One app that the operator published. */
export interface PublishedApp {
  readonly target: Target;
  /** How it is checked; null: not at all. */
  readonly check: CheckOptions | null;
}

/** What the operator published, by name. Read-only; a reload makes another. */
export type AppMap = ReadonlyMap<string, PublishedApp>;

/** An app that this connector serves and that the control plane knows under an id. */
export interface ServedApp {
  readonly id: AppId;
  readonly name: string;
  readonly target: Target;
}

/** Reads `--app NAME=tcp://HOST:PORT` arguments. Throws ERR_CONFIG_INVALID or ERR_CONFIG_NOT_AVAILABLE. */
export function parseAppArguments(texts: readonly string[]): AppMap {
  const apps = new Map<string, PublishedApp>();
  for (const text of texts) {
    const at = text.indexOf('=');
    const name = text.slice(0, Math.max(at, 0));
    checkAppName(name, `--app ${text}`);
    if (apps.has(name)) {
      throw new ZtnaError('ERR_CONFIG_INVALID', { message: `--app names "${name}" twice` });
    }
    apps.set(name, { target: parseTarget(text.slice(at + 1)), check: defaultCheck });
  }
  return apps;
}

/** Throws ERR_CONFIG_INVALID for what cannot name an app; `where` says where it stood. */
export function checkAppName(name: string, where: string): void {
  if (isName(name)) return;
  throw new ZtnaError('ERR_CONFIG_INVALID', {
    message: `${where}: this cannot name an app`,
    hint: 'use lower-case letters, digits, dots and dashes, as in wiki=tcp://127.0.0.1:8080',
  });
}

/** One map of two; `over` wins. Throws ERR_CONFIG_INVALID above the limit. */
export function mergeAppMaps(base: AppMap, over: AppMap): AppMap {
  const apps = new Map([...base, ...over]);
  if (apps.size > maxApps) {
    throw new ZtnaError('ERR_CONFIG_INVALID', {
      message: `at most ${maxApps} apps fit one connector`,
      hint: 'run a second connector for the rest',
    });
  }
  return apps;
}

/** Names that `next` lacks or dials elsewhere: their tunnels end. */
export function changedApps(before: AppMap, next: AppMap): string[] {
  return [...before].flatMap(([name, { target }]) => {
    const other = next.get(name);
    return other && isSameTarget(target, other.target) ? [] : [name];
  });
}

/** True when two maps say the same, down to how the apps are checked. */
export function isSameMap(a: AppMap, b: AppMap): boolean {
  if (a.size !== b.size || changedApps(a, b).length > 0) return false;
  return [...a].every(([name, { check }]) => isDeepStrictEqual(check, b.get(name)?.check));
}

/**
 * The apps of our own map by the ids that the control plane gave their names. A name that is not in the map
 * is ignored, so no message makes the connector dial what its operator did not list.
 */
export function servedApps(
  apps: AppMap,
  appIds: readonly (readonly [string, AppId])[],
): ReadonlyMap<AppId, ServedApp> {
  const served = new Map<AppId, ServedApp>();
  for (const [name, id] of appIds) {
    const app = apps.get(name);
    if (app) served.set(id, { id, name, target: app.target });
  }
  return served;
}

/** Names the apps that the control plane does not know: nobody is sent to them. */
export function warnOfUnrouted(
  apps: AppMap,
  appIds: readonly (readonly [string, AppId])[],
  logger: Logger,
): void {
  const missing = [...apps.keys()].filter((name) => !appIds.some(([known]) => known === name));
  if (missing.length === 0) return;
  logger.warn('apps_not_routed', {
    apps: missing.join(' '),
    fix: 'add them on the relay: ztna-relay app add NAME --site SITE',
  });
}
