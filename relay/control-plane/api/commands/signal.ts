import { ZtnaError } from '../../../../protocol/index.ts';
import { createSignalEffects } from '../../signals/effects.ts';
import { newLetterId, setTarget, webhookTarget } from '../../signals/outbox.ts';
import { noSignals } from '../../../signal-settings.ts';
import type { SetClaims } from '../../signals/transmitter-key.ts';
import type { Services } from '../../services.ts';
import { defineCommand, type Command } from '../command.ts';
import { getDevice } from '../lookup.ts';
import { byId, none } from './schema.ts';

/** Letters listed at once. */
const listed = 500;

async function listReceived(services: Services) {
  const { receive } = services.settings.signals ?? noSignals;
  const rows = await services.store.db.selectFrom('signalStreams').selectAll().execute();
  return receive.map(({ name, poll, pushTokenFile }) => {
    const row = rows.find((one) => one.name === name);
    return {
      name,
      kind: [...(pushTokenFile === null ? [] : ['push']), ...(poll ? ['poll'] : [])].join('+'),
      direction: 'in',
      count: row?.accepted ?? 0,
      refused: row?.refused ?? 0,
      waiting: 0,
      lastAtMs: row?.lastEventAtMs ?? null,
      verifiedAtMs: row?.lastVerifiedAtMs ?? null,
      status: row?.status ?? null,
      lastError: row?.lastError ?? null,
    };
  });
}

async function listSent(services: Services) {
  const { transmit, webhooks } = services.settings.signals ?? noSignals;
  const rows = await services.store.db
    .selectFrom('signalOutbox')
    .select((eb) => ['target', 'dead', eb.fn.countAll<number>().as('count')])
    .groupBy(['target', 'dead'])
    .execute();
  const failing = await services.store.db
    .selectFrom('signalOutbox')
    .select(['target', 'lastError'])
    .where('lastError', 'is not', null)
    .orderBy('createdAtMs')
    .limit(listed)
    .execute();
  const describe = (name: string, kind: string, target: string) => {
    const count = (dead: number) =>
      rows.find((row) => row.target === target && row.dead === dead)?.count ?? 0;
    return {
      ...{ name, kind, direction: 'out', count: null, refused: count(1), waiting: count(0) },
      ...{ lastAtMs: null, verifiedAtMs: null, status: null },
      lastError: failing.findLast((row) => row.target === target)?.lastError ?? null,
    };
  };
  return [
    ...transmit.map(({ name }) => describe(name, 'set', setTarget(name))),
    ...webhooks.map(({ name }) => describe(name, 'webhook', webhookTarget(name))),
  ];
}

export const signalCommands: readonly Command[] = [
  defineCommand('signal.list', 'read', none, async (services) => [
    ...(await listReceived(services)),
    ...(await listSent(services)),
  ]),

  defineCommand('signal.dead', 'read', none, async (services) => {
    const rows = await services.store.db
      .selectFrom('signalOutbox')
      .selectAll()
      .where('dead', '=', 1)
      .orderBy('createdAtMs', 'desc')
      .limit(listed)
      .execute();
    return rows.map(({ id, target, event, attempts, lastError, createdAtMs, bodyJson }) => ({
      ...{ id, target, event, attempts, lastError, createdAtMs },
      body: JSON.parse(bodyJson) as unknown,
    }));
  }),

  defineCommand('signal.retry', 'change', byId, async (services, { id }, actor) =>
    services.store.write(async (tx) => {
      const row = await tx
        .selectFrom('signalOutbox')
        .selectAll()
        .where('id', '=', id)
        .where('dead', '=', 1)
        .executeTakeFirst();
      if (!row) {
        throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
          message: `there is no dead letter ${id}`,
          hint: 'see what there is: ztna-relay signal dead',
        });
      }
      const nowMs = services.clock.nowMs();
      // A receiver may know the old token, or find it too old: it is told the same by a new one.
      const renewed = row.target.startsWith('set ')
        ? renew(JSON.parse(row.bodyJson) as SetClaims, nowMs)
        : row.bodyJson;
      await tx
        .updateTable('signalOutbox')
        .set({ dead: 0, attempts: 0, nextAtMs: nowMs, claimedUntilMs: 0, bodyJson: renewed })
        .where('id', '=', id)
        .execute();
      const { target, event } = row;
      await services.audit.append(
        { actor, action: 'signal.retry', subject: id, outcome: 'ok', details: { target, event } },
        tx,
      );
      return { id, target };
    }),
  ),

  defineCommand('signal.lift', 'change', byId, async (services, { id }, actor) =>
    services.store.write(async (tx) => {
      const device = await getDevice(tx, id);
      const streams = JSON.parse(device.restrictedJson) as string[];
      const effects = createSignalEffects(services);
      for (const stream of streams) await effects.setRestriction(tx, device, stream, false);
      await services.audit.append(
        { actor, action: 'signal.lift', subject: device.id, outcome: 'ok', details: { streams } },
        tx,
      );
      return { id: device.id, streams };
    }),
  ),
];

function renew(claims: SetClaims, nowMs: number): string {
  return JSON.stringify({ ...claims, jti: newLetterId(), iat: Math.floor(nowMs / 1_000) });
}
