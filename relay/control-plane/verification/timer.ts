import { toZtnaError, type ZtnaError } from '../../../protocol/index.ts';
import { holdSession } from '../access/end-session.ts';
import { flushConfirmations } from '../access/end-tunnels.ts';
import { renewBundle } from '../enrolment/bundle.ts';
import { endExpiredSessions } from '../identity/index.ts';
import { recheckSessions } from '../identity/oidc/recheck.ts';
import { pruneEveryMs } from '../limits.ts';
import { pruneStore, readCounter } from '../store/index.ts';
import { markClock } from '../time/open-clock.ts';
import { endOverdue } from './overdue.ts';
import { adoptTunnels, beat } from '../live/ownership.ts';
import { verifyTunnels } from './verifier.ts';
import type { Services } from '../services.ts';

const verifyEveryMs = 200;
const heartbeatEveryMs = 5_000;
const clockMarkEveryMs = 1_000;
const overdueEveryMs = 500;
const clockLearnEveryMs = 5_000;
const lifeEveryMs = 1_000;
const sweepEveryMs = 2_000;
const providersEveryMs = 1_000;
const bookkeepingEveryMs = 60_000;
const bundleCheckEveryMs = 3_600_000;
const keepMarksEveryMs = 10_000;
const postureKeepEveryMs = 1_000;
const receiptsKeepEveryMs = 500;
const riskKeepEveryMs = 10_000;

/** Tunnels verified in one go; the rest follow in the next. */
const maxAtOnce = 512;

/** Everything that the control plane does on a clock rather than on request. */
export function startTimers(services: Services, registeredAtMs: number): { stop(): Promise<void> } {
  const { store, clock, schedule, feed, logger } = services;
  // Once the store was away, nothing is found overdue before everybody got the time to come back.
  let isStoreAway = false;
  /** Since when the store was reached without a break. */
  let aliveSinceMs = Infinity;
  let lastBeatMs = registeredAtMs;
  const forgetOnLoss = store.onAvailable(() => {
    aliveSinceMs = Infinity;
    // Before the first request is served again: it must not find a connector gone that could not come back.
    services.absences.restart(clock.nowMs());
  });
  const loops = [
    startLoop(verifyEveryMs, async () => {
      if (isStoreAway) return;
      const due = schedule.takeDue(clock.nowMs(), maxAtOnce);
      if (due.length > 0) await verifyTunnels(services, due);
    }),
    startLoop(heartbeatEveryMs, () => {
      feed.beat();
      return Promise.resolve();
    }),
    startLoop(clockMarkEveryMs, watchStore),
    startLoop(overdueEveryMs, async () => {
      if (!isStoreAway) await endOverdue(services, clock.nowMs());
    }),
    startLoop(clockLearnEveryMs, () => services.learnClock()),
    startLoop(lifeEveryMs, async () => {
      try {
        lastBeatMs = await beat(services, lastBeatMs);
      } catch (error) {
        aliveSinceMs = Infinity;
        throw error;
      }
      aliveSinceMs = Math.min(aliveSinceMs, performance.now());
      await adoptTunnels(services, performance.now() - aliveSinceMs);
    }),
    startLoop(sweepEveryMs, () => sweep(services)),
    startLoop(providersEveryMs, async () => {
      if (!isStoreAway) await recheckSessions(services);
    }),
    startLoop(bookkeepingEveryMs, () => keepBooks(services)),
    startLoop(keepMarksEveryMs, () => services.keepMarks()),
    startLoop(riskKeepEveryMs, () => services.risk.keep()),
    startLoop(receiptsKeepEveryMs, () => services.receipts.keep(services)),
    startLoop(postureKeepEveryMs, async () => {
      services.postures.sweep(clock.nowMs());
      await services.postures.keep();
    }),
    startLoop(pruneEveryMs, async () => {
      const { decisions, tunnels, revocations } = await pruneStore(services.store, clock.nowMs());
      if (decisions + tunnels + revocations === 0) return;
      logger.info('store_pruned', { decisions, tunnels, revocations });
    }),
    startLoop(bundleCheckEveryMs, async () => {
      await renewBundle(services);
    }),
  ];
  async function watchStore() {
    await markClock(services);
    if (!isStoreAway) return;
    await readCounter(services.store.db, 'fencing');
    services.absences.restart(clock.nowMs());
    isStoreAway = false;
  }
  function startLoop(everyMs: number, work: () => Promise<void>) {
    return repeat(everyMs, work, (error) => {
      if (error.reason === 'store_unavailable') {
        isStoreAway = true;
        return; // the store says so itself, once
      }
      logger.error('timer_failed', {
        code: error.code,
        error: error.message,
        cause: error.cause instanceof Error ? (error.cause.stack ?? null) : null,
      });
    });
  }
  return {
    stop: async () => {
      forgetOnLoss();
      await Promise.all(loops.map((loop) => loop.stop()));
    },
  };
}

/** Runs `work` every so often, never twice at once. `stop` waits for what runs. */
function repeat(
  everyMs: number,
  work: () => Promise<void>,
  onError: (error: ZtnaError) => void,
): { stop(): Promise<void> } {
  let isStopped = false;
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> = Promise.resolve();
  const turn = () => {
    running = work()
      .catch((error: unknown) => {
        onError(toZtnaError(error));
      })
      .then(() => {
        if (!isStopped) timer = setTimeout(turn, everyMs);
      });
  };
  timer = setTimeout(turn, everyMs);
  return {
    stop: () => {
      isStopped = true;
      clearTimeout(timer);
      return running;
    },
  };
}

/** Writes down which relays carry tunnels now: all that changed in one transaction. */
export async function keepCarriers({
  store,
  tunnels,
}: Pick<Services, 'store' | 'tunnels'>): Promise<void> {
  const due = [...tunnels.all()]
    .filter(({ state, relay, keptRelay }) => state !== 'closed' && relay !== keptRelay)
    .map((tunnel) => ({ tunnel, relay: tunnel.relay }));
  if (due.length === 0) return;
  await store.write(async (tx) => {
    for (const { tunnel, relay } of due) {
      await tx.updateTable('tunnels').set({ relayId: relay }).where('id', '=', tunnel.id).execute();
      store.afterCommit(tx, () => {
        tunnel.keptRelay = relay;
      });
    }
  });
}

/** Ends sessions that ran out, and forgets closed tunnels whose grant can no longer be used. */
async function sweep(services: Services): Promise<void> {
  const { store, clock, tunnels, peers, audit } = services;
  const nowMs = clock.nowMs();
  for (const tunnel of [...tunnels.all()]) {
    if (tunnel.state === 'closed' && tunnel.grantExpiresAtMs <= nowMs) tunnels.delete(tunnel.id);
  }
  services.absences.sweep(nowMs);
  await keepCarriers(services);
  const ended = await store.db
    .selectFrom('sessions')
    .select('id')
    .where('endedAtMs', 'is', null)
    .where((eb) =>
      eb.or([
        eb('absoluteEndAtMs', '<=', nowMs),
        eb(eb('lastSeenAtMs', '+', eb.ref('idleMs')), '<=', nowMs),
      ]),
    )
    .limit(1)
    .executeTakeFirst();
  if (!ended) return;
  await store.write(async (tx) => {
    await store.lockOrder(tx, 'revocation'); // one control plane ends them
    for (const session of await endExpiredSessions(tx, nowMs)) {
      const reason = nowMs >= session.absoluteEndAtMs ? 'session_expired' : 'session_idle';
      await holdSession(services, tx, session.id, reason);
      await audit.append(
        {
          actor: 'system',
          action: 'session.end',
          subject: session.id,
          outcome: 'ok',
          details: { reason },
        },
        tx,
      );
      store.afterCommit(tx, () => {
        for (const peer of peers.devices(session.deviceId)) {
          peer.send({ type: 'session_ended', reason });
        }
      });
    }
  });
}

async function keepBooks(services: Services): Promise<void> {
  const { store, clock, tunnels, audit } = services;
  const due = [...tunnels.all()].filter((tunnel) => tunnel.confirmations > 0);
  if (due.length > 0) {
    await store.write(async (tx) => {
      const nowMs = clock.nowMs();
      for (const tunnel of due) {
        await flushConfirmations(store, tx, tunnel, nowMs);
        await tx
          .updateTable('tunnels')
          .set({ untilMs: tunnel.untilMs })
          .where('id', '=', tunnel.id)
          .where('state', '!=', 'closed')
          .execute();
      }
    });
  }
  await audit.checkpoint();
}
