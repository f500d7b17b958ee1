import type { ExecutionContext } from 'ava';
import { createLogger } from '../../protocol/host/index.ts';
import { parseAppArguments } from '../../connector/app-map.ts';
import { Connector } from '../../connector/connector.ts';
import { IdentityKeeper } from '../../connector/identity-keeper.ts';
import { Metrics } from '../../connector/metrics.ts';
import { StreamBudget } from '../../connector/stream-budget.ts';
import { FakeRelay } from './fake-relay.ts';
import { TestApp } from './test-app.ts';

export interface Running {
  readonly relay: FakeRelay;
  readonly app: TestApp;
  readonly connector: Connector;
  readonly metrics: Metrics;
  readonly log: string[];
  /** Settles when the connector has ended. */
  readonly running: Promise<void>;
  readonly stop: () => Promise<void>;
}

/** A connector that serves one app through a relay of the test's own, once it is ready. */
export async function startConnector(
  t: Pick<ExecutionContext, 'teardown'>,
  options: { streams?: StreamBudget; version?: number; wedgedAfterMs?: number } = {},
): Promise<Running> {
  const { streams = new StreamBudget(), version = 1, wedgedAfterMs } = options;
  const relay = await FakeRelay.start(version);
  const app = await TestApp.start();
  const log: string[] = [];
  const logger = createLogger({
    program: 'test',
    level: 'debug',
    format: 'json',
    write: (line) => log.push(line),
  });
  const keeper = new IdentityKeeper({
    dir: '/nowhere',
    identity: relay.identity(),
    logger,
    save: () => Promise.resolve(),
    onRevoked: () => undefined,
  });
  const metrics = new Metrics();
  const ready = Promise.withResolvers<undefined>();
  const connector = new Connector({
    keeper,
    apps: parseAppArguments([`app=tcp://127.0.0.1:${app.port}`]),
    metrics,
    logger,
    software: 'test',
    isSealed: false,
    streams,
    ...(wedgedAfterMs === undefined ? {} : { wedgedAfterMs }),
    checkApp: () => Promise.resolve(undefined),
    onReady: () => {
      ready.resolve(undefined);
    },
  });
  const ending = new AbortController();
  const running = connector.run(ending.signal);
  const stop = async () => {
    ending.abort();
    await running.catch(() => undefined);
  };
  t.teardown(async () => {
    await stop();
    await app.stop();
    await relay.stop();
  });
  await ready.promise;
  return { relay, app, connector, metrics, log, running, stop };
}
