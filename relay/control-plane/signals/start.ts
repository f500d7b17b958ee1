import type { IncomingMessage, ServerResponse } from 'node:http';
import { toZtnaError } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import { Deliverer, type Target } from './deliver.ts';
import { createSignalEffects } from './effects.ts';
import { readSmallFile } from './keys.ts';
import { deadKeptMs } from './limits.ts';
import { OutboxFeed } from './outbox.ts';
import { startPoller } from './poll.ts';
import { pushPath, PushReceiver, type PushStream } from './push.ts';
import { noSignals, type SignalSettings } from '../../signal-settings.ts';
import { openStream, readAuthorization, readSecret, registerStreams } from './streams.ts';
import {
  configurationPath,
  keySetPath,
  openTransmitterKey,
  readKeySet,
  ssfConfiguration,
} from './transmitter-key.ts';

/** Everything about signals that runs. */
export interface Signals {
  /** Answers a browser-facing request that is about signals; false for any other. */
  readonly answer: (address: string, request: IncomingMessage, response: ServerResponse) => boolean;
  stop(): Promise<void>;
}

/** How often what could not be delivered, or was not looked at, is looked for. */
const turnEveryMs = 1_000;
const feedEveryMs = 60_000;
const pruneEveryMs = 600_000;

/**
 * Starts receivers, pollers, the transmitter and webhooks as `relay.yaml` names them. `directory` is where this
 * control plane keeps its own keys. Throws ERR_CONFIG_* for a file that is missing or holds what it may not.
 */
export async function startSignals(services: Services, directory: string): Promise<Signals> {
  const settings = services.settings.signals ?? noSignals;
  const effects = createSignalEffects(services);
  const pushed: PushStream[] = [];
  const pollers: { stop(): Promise<void> }[] = [];
  await registerStreams(
    services,
    settings.receive.map(({ name }) => name),
  );
  const targets = await openTargets(services, settings, directory);
  const streams = await Promise.all(
    settings.receive.map(async (one) => ({
      stream: await openStream(one),
      push: one.pushTokenFile === null ? null : await readAuthorization(one.pushTokenFile),
      poll: one.poll && {
        poll: one.poll,
        authorization: await readAuthorization(one.poll.tokenFile),
        ca: await readCa(one.poll.caFile),
      },
    })),
  );
  // Every file was read: from here on nothing fails.
  for (const { stream, push, poll } of streams) {
    if (push !== null) pushed.push({ ...stream, authorization: push });
    if (poll) pollers.push(startPoller(services, effects, { ...stream, ...poll }));
  }
  const receiver = new PushReceiver(services, effects, pushed);
  const deliverer = new Deliverer(services, targets);
  const feed = new OutboxFeed(services, settings, () => {
    deliverer.wake();
  });
  const hasTargets = targets.length > 0;
  if (hasTargets) await feed.begin();
  const timers = [
    ...(hasTargets
      ? [
          setInterval(() => deliverer.wake(), turnEveryMs),
          setInterval(() => feed.wake(), feedEveryMs),
        ]
      : []),
    setInterval(() => void prune(services), pruneEveryMs),
  ];
  let stopping: Promise<void> | undefined;
  const stop = async () => {
    for (const timer of timers) clearInterval(timer);
    await Promise.all([feed.stop(), deliverer.stop(), ...pollers.map((poller) => poller.stop())]);
  };
  return {
    answer: (address, request, response) => {
      const { url = '' } = request;
      if (pushed.length > 0 && url.startsWith(pushPath)) {
        void receiver.answer(address, request, response);
        return true;
      }
      if (settings.transmit.length === 0) return false;
      if (url !== configurationPath && url !== keySetPath) return false;
      void publish(services, url, response);
      return true;
    },
    stop: () => (stopping ??= stop()),
  };
}

async function openTargets(
  services: Services,
  { transmit, webhooks }: SignalSettings,
  directory: string,
): Promise<Target[]> {
  const key = transmit.length === 0 ? null : await openTransmitterKey(services, directory);
  const sets = transmit.map(async (settings): Promise<Target[]> => {
    if (!key) return [];
    const { tokenFile } = settings;
    const authorization = tokenFile === null ? null : await readAuthorization(tokenFile);
    return [{ kind: 'set', settings, authorization, ca: await readCa(settings.caFile), key }];
  });
  const calls = webhooks.map(async (settings): Promise<Target[]> => {
    const secret = await readSecret(settings.secretFile);
    return [{ kind: 'webhook', settings, secret, ca: await readCa(settings.caFile) }];
  });
  return (await Promise.all([...sets, ...calls])).flat();
}

async function readCa(file: string | null): Promise<string | null> {
  return file === null ? null : readSmallFile(file);
}

async function publish(services: Services, url: string, response: ServerResponse): Promise<void> {
  const { store, settings, logger } = services;
  let status = 200;
  let text = '';
  try {
    text = JSON.stringify(
      url === keySetPath ? await readKeySet(store.db) : ssfConfiguration(settings.url),
    );
  } catch (error) {
    logger.warn('signal_failed', { code: toZtnaError(error).code });
    status = 503;
  }
  response.writeHead(status, {
    'content-type': url === keySetPath ? 'application/jwk-set+json' : 'application/json',
    'cache-control': 'public, max-age=300',
    connection: 'close',
  });
  response.end(text);
}

/** Forgets tokens that their age refuses anyway, what counts no more, and old dead letters. */
export async function prune({ store, clock, logger }: Services): Promise<void> {
  const nowMs = clock.nowMs();
  try {
    await store.write(async (tx) => {
      await tx.deleteFrom('signalTokens').where('expiresAtMs', '<', nowMs).execute();
      await tx
        .deleteFrom('signalMarks')
        .where('kind', '=', 'risk')
        .where('untilMs', '<', nowMs)
        .execute();
      await tx
        .deleteFrom('signalOutbox')
        .where('dead', '=', 1)
        .where('createdAtMs', '<', nowMs - deadKeptMs)
        .execute();
    });
  } catch (error) {
    const { code, message, reason } = toZtnaError(error);
    if (reason !== 'store_unavailable')
      logger.error('signal_prune_failed', { code, error: message });
  }
}
