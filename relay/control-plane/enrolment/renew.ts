import { isId, ZtnaError } from '../../../protocol/index.ts';
import { readRenewalClaim, verifyRenewalProof } from '../devices/index.ts';
import { relayKeyName } from '../relays/relay.ts';
import type { Services } from '../services.ts';
import { readMeta, type Reader, type Tx } from '../store/index.ts';
import { issueFor, renewableForMs } from './certificate.ts';

interface Holder {
  readonly role: 'device' | 'connector' | 'data-plane';
  readonly id: string;
  readonly signingKey: string;
  readonly notAfterMs: number | null;
  readonly url: string;
}

/**
 * Issues a new certificate to an enrolled identity that proves itself by its Ed25519 key, up to 30 days past the end
 * of the old one. Throws ERR_IDENTITY_REVOKED, ERR_STATEMENT_REFUSED or ERR_IDENTITY_KEY_REFUSED.
 */
export async function renewIdentity(
  services: Services,
  request: { readonly certificateRequest: string; readonly proof: string },
): Promise<{ certificate: string; bundle: string }> {
  const { store, clock, authority, audit } = services;
  const id = readRenewalClaim(request.proof);
  const holder = id === undefined ? undefined : await findHolder(services, store.db, id);
  if (!holder) throw new ZtnaError('ERR_STATEMENT_REFUSED', { reason: 'renewal_unknown' });
  verifyRenewalProof(request, holder);
  const isTooLate =
    holder.notAfterMs !== null && clock.nowMs() > holder.notAfterMs + renewableForMs;
  if (isTooLate) throw new ZtnaError('ERR_IDENTITY_REVOKED', { reason: 'renewal_too_late' });
  const certificate = await issueFor(authority, clock, holder, request.certificateRequest);
  await store.write(async (tx) => {
    // Revoked while the certificate was made: it must not leave.
    if (!(await findHolder(services, tx, holder.id))) throw new ZtnaError('ERR_IDENTITY_REVOKED');
    await storeCertificate(tx, holder, certificate.serial, certificate.notAfterMs);
    await audit.append(
      {
        actor: `${holder.role === 'data-plane' ? 'relay' : holder.role}:${holder.id}`,
        action: 'certificate.renew',
        subject: holder.id,
        outcome: 'ok',
        details: { serial: certificate.serial },
      },
      tx,
    );
  });
  return { certificate: certificate.pem, bundle: services.bundle.statement };
}

/** Whoever may still renew: enrolled, also while disabled for a time, not revoked. */
async function findHolder(
  services: Services,
  db: Reader | Tx,
  id: string,
): Promise<Holder | undefined> {
  const { url } = services.settings;
  if (isId('device', id)) {
    const row = await db
      .selectFrom('devices')
      .selectAll()
      .where('id', '=', id)
      .where('state', '!=', 'revoked')
      .executeTakeFirst();
    return row && { ...row, role: 'device', notAfterMs: row.certificateNotAfterMs, url };
  }
  if (isId('connector', id)) {
    const row = await db
      .selectFrom('connectors')
      .selectAll()
      .where('id', '=', id)
      .where('state', '!=', 'removed')
      .executeTakeFirst();
    return row && { ...row, role: 'connector', notAfterMs: row.certificateNotAfterMs, url };
  }
  if (!isId('relay', id)) return undefined;
  const row = await db
    .selectFrom('relays')
    .selectAll()
    .where('id', '=', id)
    .where('state', '!=', 'removed')
    .executeTakeFirst();
  const signingKey = await readMeta(db, relayKeyName(id));
  if (!row || signingKey === undefined) return undefined;
  return {
    role: 'data-plane',
    id,
    signingKey,
    notAfterMs: row.certificateNotAfterMs,
    url: row.url,
  };
}

async function storeCertificate(
  tx: Tx,
  { role, id }: Holder,
  certificateSerial: string,
  certificateNotAfterMs: number,
): Promise<void> {
  const set = { certificateSerial, certificateNotAfterMs };
  const table = role === 'device' ? 'devices' : role === 'connector' ? 'connectors' : 'relays';
  await tx
    .updateTable(table)
    .set(set)
    .where('id', '=', id as never)
    .execute();
}
