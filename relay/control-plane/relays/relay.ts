import { maxRelays, newId, ZtnaError, type RelayId } from '../../../protocol/index.ts';
import type { Flag, Relay } from '../store/database.ts';
import type { Reader, Tx } from '../store/index.ts';
import { writeMeta } from '../store/index.ts';

/** Where the store keeps the Ed25519 key of a data plane. */
export function relayKeyName(id: string): string {
  return `relay_signing_key:${id}`;
}

/** Where the store keeps that a control plane has started beside a relay that may have one. */
export function controlStartedName(id: string): string {
  return `relay_control_started:${id}`;
}

/** Refuses a name or an address that a relay has, and one relay too many. Throws ERR_CONFIG_EXISTS or ERR_CONFIG_USAGE. */
export async function refuseTaken(
  db: Reader | Tx,
  relay: { readonly name: string; readonly url: string },
): Promise<void> {
  const rows = await db
    .selectFrom('relays')
    .select(['name', 'url'])
    .where('state', '!=', 'removed')
    .execute();
  const same = rows.find(({ name, url }) => name === relay.name || url === relay.url);
  if (same) {
    throw new ZtnaError('ERR_CONFIG_EXISTS', {
      message: `there is a relay ${same.name} at ${same.url} already`,
      hint: 'choose another name and address, or remove that one first',
    });
  }
  if (rows.length >= maxRelays) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: `a deployment has at most ${String(maxRelays)} relays`,
    });
  }
}

export interface NewRelay {
  readonly name: string;
  readonly url: string;
  /** It may have a control plane. */
  readonly isControl: boolean;
  /** Ed25519, base64url. */
  readonly signingKey: string;
  readonly nowMs: number;
}

/** Adds a relay. Throws as `refuseTaken`. */
export async function addRelay(tx: Tx, relay: NewRelay): Promise<Relay> {
  const { name, url, isControl, signingKey, nowMs } = relay;
  await refuseTaken(tx, relay);
  await freeName(tx, name);
  const row: Relay = {
    id: newId('relay'),
    name,
    url,
    state: 'enrolled',
    certificateSerial: null,
    certificateNotAfterMs: null,
    createdAtMs: nowMs,
    lastSeenAtMs: null,
    isControl: Number(isControl) as Flag,
    isDraining: 0,
  };
  await tx.insertInto('relays').values(row).execute();
  await writeMeta(tx, relayKeyName(row.id), signingKey);
  return row;
}

/** Names are unique, and a relay that was removed needs its own no more. */
async function freeName(tx: Tx, name: string): Promise<void> {
  await tx
    .updateTable('relays')
    .set((eb) => ({ name: eb.cast<string>(eb.ref('id'), 'text') }))
    .where('name', '=', name)
    .where('state', '=', 'removed')
    .execute();
}

/** The hosts by which relays are reached, for certificates: each once. */
export async function relayHosts(db: Reader | Tx): Promise<string[]> {
  const rows = await db
    .selectFrom('relays')
    .select('url')
    .where('state', '=', 'enrolled')
    .orderBy('id')
    .execute();
  return [...new Set(rows.map(({ url }) => new URL(url).hostname.replace(/^\[|\]$/g, '')))];
}

export async function readRelay(db: Reader | Tx, id: RelayId): Promise<Relay | undefined> {
  return db.selectFrom('relays').selectAll().where('id', '=', id).executeTakeFirst();
}
