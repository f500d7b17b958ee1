import { ZtnaError, type ConnectorId, type InstanceId } from '../../../protocol/index.ts';
import type { ConnectorPeer } from '../live/peers.ts';
import { noteLink } from '../live/ownership.ts';
import type { Services } from '../services.ts';
import type { Connector, Tx } from '../store/index.ts';

/** Processes remembered of each connector that a newer one has replaced. */
const maxReplaced = 64;

/**
 * Makes this process the one that counts of the connector. One that a newer process has replaced stays out for good,
 * however long it was frozen or cut off meanwhile. Throws ERR_CONNECTOR_REPLACED or ERR_IDENTITY_REVOKED.
 */
export async function takeInstance(
  services: Services,
  tx: Tx,
  id: ConnectorId,
  instance: InstanceId,
): Promise<Connector> {
  const known = await tx
    .selectFrom('connectors')
    .selectAll()
    .where('id', '=', id)
    .where('state', '=', 'enrolled')
    .executeTakeFirst();
  if (!known) throw new ZtnaError('ERR_IDENTITY_REVOKED');
  let replaced = JSON.parse(known.replacedJson) as InstanceId[];
  if (replaced.includes(instance)) throw new ZtnaError('ERR_CONNECTOR_REPLACED');
  if (known.instance !== null && known.instance !== instance) {
    replaced = [...replaced, known.instance].slice(-maxReplaced);
  }
  const change = {
    instance,
    replacedJson: JSON.stringify(replaced),
    lastSeenAtMs: services.clock.nowMs(),
  };
  await tx.updateTable('connectors').set(change).where('id', '=', id).execute();
  await noteLink(services, tx, id, instance);
  services.store.afterCommit(tx, () => {
    services.peers.noteNewest(id, instance);
  });
  return { ...known, ...change };
}

/** The newest process counts; that another was here at the same time may mean a copied key. */
export async function reportDuplicate(services: Services, peer: ConnectorPeer): Promise<void> {
  services.logger.warn('connector_replaced', { connector: peer.id, instance: peer.instance });
  await services.audit.append({
    actor: `connector:${peer.id}`,
    action: 'connector.replace',
    subject: peer.id,
    outcome: 'ok',
    details: { instance: peer.instance, address: peer.address },
  });
}
