import { newId, ZtnaError, type SiteId, type UserId } from '../../../protocol/index.ts';
import type { Connector, Device } from '../store/database.ts';
import type { Reader, Tx } from '../store/store.ts';

/** How many devices a user may hold unless the configuration says otherwise. */
export const defaultMaxDevicesPerUser = 3;

export interface NewDevice {
  readonly userId: UserId;
  readonly hostname: string;
  readonly platform: string;
  readonly signingKey: string; // base64url, as `verifyEnrolmentProof` checked it
  readonly noiseKey: string;
  readonly state: 'enrolled' | 'pending';
  readonly maxPerUser: number;
  readonly nowMs: number;
}

/**
 * Adds a device. Throws ERR_LIMIT_DEVICES, or ERR_IDENTITY_KEY_REFUSED when one of its keys is enrolled
 * already, for whomever and in whatever state: a revoked key stays revoked.
 */
export async function addDevice(tx: Tx, device: NewDevice): Promise<Device> {
  const { count } = await tx
    .selectFrom('devices')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('userId', '=', device.userId)
    .where('state', '!=', 'revoked')
    .executeTakeFirstOrThrow();
  if (count >= device.maxPerUser) {
    throw new ZtnaError('ERR_LIMIT_DEVICES', { hint: 'revoke a device that is not used' });
  }
  await refuseKnownKeys(tx, device);
  const row: Device = {
    id: newId('device'),
    userId: device.userId,
    hostname: device.hostname,
    platform: device.platform,
    signingKey: device.signingKey,
    noiseKey: device.noiseKey,
    certificateSerial: null,
    certificateNotAfterMs: null,
    state: device.state,
    createdAtMs: device.nowMs,
    lastSeenAtMs: null,
    restrictedJson: '[]',
    unhealthy: 0,
  };
  await tx.insertInto('devices').values(row).execute();
  return row;
}

export interface NewConnector {
  readonly name: string;
  readonly siteId: SiteId;
  readonly signingKey: string;
  readonly noiseKey: string;
  readonly nowMs: number;
}

/** Adds a connector. Throws ERR_IDENTITY_KEY_REFUSED when one of its keys is enrolled already. */
export async function addConnector(tx: Tx, connector: NewConnector): Promise<Connector> {
  await refuseKnownKeys(tx, connector);
  const row: Connector = {
    id: newId('connector'),
    name: connector.name,
    siteId: connector.siteId,
    signingKey: connector.signingKey,
    noiseKey: connector.noiseKey,
    certificateSerial: null,
    certificateNotAfterMs: null,
    instance: null,
    replacedJson: '[]',
    state: 'enrolled',
    createdAtMs: connector.nowMs,
    lastSeenAtMs: null,
  };
  await tx.insertInto('connectors').values(row).execute();
  return row;
}

async function refuseKnownKeys(
  db: Reader | Tx,
  keys: { readonly signingKey: string; readonly noiseKey: string },
): Promise<void> {
  for (const table of ['devices', 'connectors'] as const) {
    const known = await db
      .selectFrom(table)
      .select('id')
      .where((eb) =>
        eb.or([eb('signingKey', '=', keys.signingKey), eb('noiseKey', '=', keys.noiseKey)]),
      )
      .executeTakeFirst();
    if (known) throw new ZtnaError('ERR_IDENTITY_KEY_REFUSED', { reason: 'key_enrolled_already' });
  }
}
