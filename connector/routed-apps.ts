import type { AppId } from '../protocol/index.ts';
import type { Logger } from '../protocol/host/index.ts';
import { servedApps, warnOfUnrouted, type AppMap, type ServedApp } from './app-map.ts';
import type { ConnectorStatus } from './status-socket.ts';
import { formatTarget } from './target.ts';

/**
 * What the operator published, under the ids that the control plane gave: an app is served when both name it. Either
 * side may change at any time; each change warns of the apps that the control plane does not know.
 */
export class RoutedApps {
  readonly #logger: Logger;
  #map: AppMap;
  #ids: readonly (readonly [string, AppId])[] = [];
  #served: ReadonlyMap<AppId, ServedApp> = new Map();

  /** Serves nothing until it is told the ids. */
  constructor(map: AppMap, logger: Logger) {
    this.#map = map;
    this.#logger = logger;
  }

  /** What the operator published. */
  get map(): AppMap {
    return this.#map;
  }

  /** What grants may name. */
  get served(): ReadonlyMap<AppId, ServedApp> {
    return this.#served;
  }

  /** The operator published another map. */
  publish(map: AppMap): void {
    this.#map = map;
    this.#serve();
  }

  /** The control plane told the ids. */
  route(ids: readonly (readonly [string, AppId])[]): void {
    this.#ids = ids;
    this.#serve();
  }

  /** The published apps, for status; `isUp` answers undefined for what no check has told. */
  describe(isUp: (name: string) => boolean | undefined): ConnectorStatus['apps'] {
    const routed = new Set([...this.#served.values()].map((app) => app.name));
    return [...this.#map].map(([name, { target, check }]) => ({
      name,
      target: formatTarget(target),
      routed: routed.has(name),
      checked: check !== null,
      up: isUp(name) ?? null,
    }));
  }

  #serve(): void {
    this.#served = servedApps(this.#map, this.#ids);
    warnOfUnrouted(this.#map, this.#ids, this.#logger);
  }
}
