import {
  maxRelays,
  relayListSchema,
  signStatement,
  type RelayId,
} from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import {
  raiseCounter,
  readCounter,
  readMeta,
  writeMeta,
  type Reader,
  type Tx,
} from '../store/index.ts';
import { controlStartedName } from './relay.ts';

/** The signed word on which relays there are, and its version. */
export interface SignedRelayList {
  readonly statement: string;
  readonly version: number;
}

type Signer = Pick<Services, 'authority'>;

/** Signs what the store says now. */
export async function readRelayList(
  { authority }: Signer,
  db: Reader | Tx,
): Promise<SignedRelayList> {
  const version = await readCounter(db, 'relaysVersion');
  const rows = await db
    .selectFrom('relays')
    .select(['id', 'url', 'isDraining'])
    .where('state', '=', 'enrolled')
    .orderBy('id')
    .limit(maxRelays)
    .execute();
  const beside = await db
    .selectFrom('meta')
    .select('key')
    .where('key', 'like', controlStartedName('%'))
    .execute();
  const started = new Set(beside.map(({ key }) => key));
  const relays = rows.map(({ id, url, isDraining }) => ({
    id,
    url,
    isControl: started.has(controlStartedName(id)),
    isDraining: isDraining === 1,
  }));
  const statement = signStatement(
    'relays',
    relayListSchema,
    { version, relays },
    authority.grantKey,
  );
  return { statement, version };
}

/**
 * To be called in every transaction that changes what the list says, behind the change: it is a new version then, and
 * everyone who holds a channel here is told once that is durable.
 */
export async function raiseRelayList(services: Services, tx: Tx): Promise<void> {
  await raiseCounter(tx, 'relaysVersion');
  services.store.announce(tx, 'relays');
  const list = await readRelayList(services, tx);
  services.store.afterCommit(tx, () => {
    useRelayList(services, list);
  });
}

/** Reads the list again where another control plane may have changed it. Answers whether it was newer. */
export async function refreshRelayList(services: Services): Promise<boolean> {
  const { store, relayList } = services;
  if ((await readCounter(store.db, 'relaysVersion')) <= relayList.version) return false;
  return useRelayList(services, await store.write((tx) => readRelayList(services, tx)));
}

function useRelayList(services: Services, list: SignedRelayList): boolean {
  if (list.version <= services.relayList.version) return false;
  services.relayList = list; // in one turn with the sends: who registers later is told this one
  for (const peer of services.peers.all()) tellRelays(services, peer);
  services.onRelaysChanged();
  services.logger.info('relays_changed', { version: list.version });
  return true;
}

/** Tells one peer, if its version has a message for it. */
export function tellRelays(
  { relayList }: Pick<Services, 'relayList'>,
  peer: {
    readonly version: number;
    send(message: { readonly type: 'relays'; readonly statement: string }): void;
  },
): void {
  if (peer.version >= 2) peer.send({ type: 'relays', statement: relayList.statement });
}

/** Notes that a relay drains, or does no more. Answers whether that was news. */
export async function setDraining(
  services: Services,
  id: RelayId,
  isDraining: boolean,
): Promise<boolean> {
  return services.store.write(async (tx) => {
    const changed = await tx
      .updateTable('relays')
      .set({ isDraining: isDraining ? 1 : 0 })
      .where('id', '=', id)
      .where('state', '=', 'enrolled')
      .where('isDraining', '=', isDraining ? 0 : 1)
      .returning('id')
      .executeTakeFirst();
    if (changed) await raiseRelayList(services, tx);
    return changed !== undefined;
  });
}

/** Notes that this control plane has started beside the relay of its address: from then on the list says so. */
export async function noteControl(services: Services): Promise<void> {
  await services.store.write(async (tx) => {
    const row = await tx
      .selectFrom('relays')
      .select('id')
      .where('url', '=', services.settings.url)
      .where('state', '=', 'enrolled')
      .where('isControl', '=', 1)
      .executeTakeFirst();
    if (!row || (await readMeta(tx, controlStartedName(row.id))) !== undefined) return;
    await writeMeta(tx, controlStartedName(row.id), '1');
    await raiseRelayList(services, tx);
  });
}
