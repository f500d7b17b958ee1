import { X509Certificate } from 'node:crypto';
import {
  isId,
  joiningSchema,
  maxControlPlanes,
  verifyingKey,
  verifyStatement,
  ZtnaError,
  type ControlPlaneKeys,
  type Joining,
  type JoinRequest,
} from '../../../protocol/index.ts';
import { relayKeyName } from '../relays/relay.ts';
import type { Services } from '../services.ts';
import { readMeta, type Relay, type Tx } from '../store/index.ts';
import { readControlPlanes, replaceControlPlanes, useBundle, type SignedBundle } from './bundle.ts';

/**
 * Takes the keys of a further control plane into the bundle: those of a relay that was invited as one, proved by its own
 * key and by each of them. Asked again with the same keys, it answers again; a relay has one set of keys for life.
 * Throws ERR_IDENTITY_CODE_REFUSED, ERR_STATEMENT_REFUSED, ERR_IDENTITY_KEY_REFUSED, ERR_CONFIG_USAGE when there are as
 * many as there may be, and ERR_RELAY_UNAVAILABLE (`root_elsewhere`) where the root's key is not.
 */
export async function joinControlPlane(
  services: Services,
  request: JoinRequest,
): Promise<{ readonly bundle: string; readonly sealKey: string }> {
  const { store, authority, audit, clock } = services;
  if (!authority.hasRoot) {
    throw new ZtnaError('ERR_RELAY_UNAVAILABLE', {
      reason: 'root_elsewhere',
      hint: 'join the control plane that holds the root key',
    });
  }
  const { bundle, isNew } = await store.write(async (tx) => {
    await store.lockOrder(tx, 'revocation');
    const joining = await verifyJoining(tx, request, clock.nowMs());
    const { relay, ...keys } = joining;
    const member: ControlPlaneKeys = { id: relay, ...keys };
    const { members } = await readControlPlanes(authority, tx);
    const known = members.find(({ id }) => id === relay);
    if (known) {
      if (!isSame(known, member)) throw refused('relay_has_joined');
      return { bundle: services.bundle, isNew: false };
    }
    if (members.length >= maxControlPlanes) {
      throw new ZtnaError('ERR_CONFIG_USAGE', {
        message: `a deployment has at most ${String(maxControlPlanes)} control planes`,
      });
    }
    const signed = await replaceControlPlanes(services, tx, [...members, member]);
    await audit.append(
      {
        actor: `relay:${relay}`,
        action: 'control_plane.join',
        subject: relay,
        outcome: 'ok',
        details: { bundle: signed.version },
      },
      tx,
    );
    return { bundle: signed, isNew: true };
  });
  // Everyone with a channel here knows the keys before their holder signs anything.
  if (isNew) useBundle(services, bundle);
  return { bundle: bundle.statement, sealKey: services.sealer.share() };
}

/**
 * Takes the keys of a removed relay's control plane out of the bundle. Throws ERR_CONFIG_USAGE where the root's key is
 * not. Answers the bundle that counts once `tx` is durable; undefined when it had none.
 */
export async function dropControlPlane(
  services: Services,
  tx: Tx,
  { id: relay, isControl }: Pick<Relay, 'id' | 'isControl'>,
): Promise<SignedBundle | undefined> {
  // Seen from elsewhere it may be the one with the root key itself, whose keys no bundle can be without.
  if (isControl === 1 && !services.authority.hasRoot) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: 'a relay with a control plane is removed where the root key is',
      hint: 'run this on the relay that holds the root key; if that one is lost, restore its directory from a backup',
    });
  }
  const { members } = await readControlPlanes(services.authority, tx);
  const left = members.filter(({ id }) => id !== relay);
  if (left.length === members.length) return undefined;
  return replaceControlPlanes(services, tx, left);
}

async function verifyJoining(tx: Tx, request: JoinRequest, nowMs: number): Promise<Joining> {
  const claimed = readClaim(request.relay);
  const row =
    claimed === undefined || !isId('relay', claimed)
      ? undefined
      : await tx
          .selectFrom('relays')
          .select(['id', 'isControl'])
          .where('id', '=', claimed)
          .where('state', '=', 'enrolled')
          .executeTakeFirst();
  const relayKey = row && (await readMeta(tx, relayKeyName(row.id)));
  if (!row || relayKey === undefined) throw refused('relay_unknown');
  if (row.isControl !== 1) throw refused('code_kind');
  const joining = open(request.relay, relayKey);
  if (joining.relay !== row.id) throw refused('relay_unknown');
  for (const name of ['grant', 'roster', 'audit'] as const) {
    const proved = open(request[name], joining[`${name}Key`]);
    if (JSON.stringify(proved) !== JSON.stringify(joining)) {
      throw new ZtnaError('ERR_STATEMENT_REFUSED', { reason: 'joining_proof' });
    }
  }
  checkAuthority(joining.authority, nowMs);
  return joining;
}

function open(statement: string, key: string): Joining {
  const verifying = verifyingKey(Buffer.from(key, 'base64url'));
  return verifyStatement('joining', joiningSchema, statement, [verifying]);
}

/** Whom a statement claims to be from; believed only once its signature fits. */
function readClaim(statement: string): string | undefined {
  const payload = Buffer.from(statement.split('.')[2] ?? '', 'base64url').toString('latin1');
  return /"relay":"(rel_[0-9a-z]{26})"/.exec(payload)?.[1];
}

/** A CA made on a machine whose clock is that far ahead still counts, since it will in a moment. */
const clockSlackMs = 10 * 60_000;

/** A CA that ends sooner would be of no use to anybody it issues to. */
const leastLifeMs = 30 * 86_400_000;

/** Its own signature proves that whoever made it has its key; and it is valid, and for a good while. */
function checkAuthority(pem: string, nowMs: number): void {
  try {
    const certificate = new X509Certificate(pem);
    const isOurKind =
      certificate.ca &&
      certificate.publicKey.asymmetricKeyType === 'rsa' &&
      (certificate.publicKey.asymmetricKeyDetails?.modulusLength ?? 0) >= 2048 &&
      certificate.verify(certificate.publicKey) &&
      certificate.toString() === pem;
    const isValid =
      Date.parse(certificate.validFrom) <= nowMs + clockSlackMs &&
      Date.parse(certificate.validTo) >= nowMs + leastLifeMs;
    if (isOurKind && isValid) return;
    if (isOurKind) {
      throw new ZtnaError('ERR_IDENTITY_KEY_REFUSED', {
        reason: 'authority_dates',
        hint: 'set the clock of this machine, delete what is in its --dir, and join anew',
      });
    }
  } catch (cause) {
    if (cause instanceof ZtnaError) throw cause;
    throw new ZtnaError('ERR_IDENTITY_KEY_REFUSED', { reason: 'authority_form', cause });
  }
  throw new ZtnaError('ERR_IDENTITY_KEY_REFUSED', { reason: 'authority_form' });
}

function isSame(a: ControlPlaneKeys, b: ControlPlaneKeys): boolean {
  return (['grantKey', 'rosterKey', 'auditKey', 'authority'] as const).every(
    (name) => a[name] === b[name],
  );
}

function refused(reason: string): ZtnaError {
  return new ZtnaError('ERR_IDENTITY_CODE_REFUSED', { reason });
}
