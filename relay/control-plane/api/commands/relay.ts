import { ZtnaError } from '../../../../protocol/index.ts';
import { useBundle } from '../../enrolment/bundle.ts';
import { dropControlPlane } from '../../enrolment/join.ts';
import { disown } from '../../live/ownership.ts';
import { raiseRelayList } from '../../relays/relay-list.ts';
import type { Services } from '../../services.ts';
import type { Relay } from '../../store/index.ts';
import { defineCommand, type Command } from '../command.ts';
import { getRelay } from '../lookup.ts';
import { byId, none } from './schema.ts';

function describeRelay(services: Services, row: Relay) {
  const peer = services.peers.relays.get(row.id);
  const isDraining = row.isDraining === 1;
  return {
    id: row.id,
    name: row.name,
    url: row.url,
    controlPlane: row.isControl === 1,
    state: row.state === 'enrolled' && isDraining ? 'draining' : row.state,
    online: peer !== undefined,
    connectors: [...(peer?.slots.values() ?? [])].filter(({ idle }) => idle > 0).length,
    certificateUntilMs: row.certificateNotAfterMs,
    lastSeenAtMs: row.lastSeenAtMs,
    createdAtMs: row.createdAtMs,
  };
}

export const relayCommands: readonly Command[] = [
  defineCommand('relay.list', 'read', none, async (services) => {
    const rows = await services.store.db
      .selectFrom('relays')
      .selectAll()
      .where('state', '!=', 'removed')
      .orderBy('name')
      .execute();
    return rows.map((row) => describeRelay(services, row));
  }),
  defineCommand('relay.show', 'read', byId, async (services, { id }) =>
    describeRelay(services, await getRelay(services.store.db, id)),
  ),
  defineCommand('relay.remove', 'change', byId, async (services, { id }, actor) =>
    services.store.write(async (tx) => {
      await services.store.lockOrder(tx, 'revocation'); // what it granted before, it granted; nothing behind this
      const row = await getRelay(tx, id);
      if (row.url === services.settings.url) {
        throw new ZtnaError('ERR_CONFIG_USAGE', {
          message: `${row.name} is the relay that this command runs on`,
          hint: 'remove it from another relay with a control plane',
        });
      }
      await tx.updateTable('relays').set({ state: 'removed' }).where('id', '=', row.id).execute();
      await disown(services, tx, row.id);
      await raiseRelayList(services, tx);
      const bundle = await dropControlPlane(services, tx, row);
      await services.audit.append(
        {
          actor,
          action: 'relay.remove',
          subject: row.id,
          outcome: 'ok',
          details: { name: row.name },
        },
        tx,
      );
      services.store.afterCommit(tx, () => {
        if (bundle) useBundle(services, bundle);
        services.peers.relays.get(row.id)?.close(new ZtnaError('ERR_IDENTITY_REVOKED'));
      });
      return { id: row.id };
    }),
  ),
];
