import { randomBytes } from 'node:crypto';
import {
  serviceProofSchema,
  toZtnaError,
  verifyingKey,
  verifyStatement,
  ZtnaError,
  type FromDevice,
  type ToDevice,
} from '../../../protocol/index.ts';
import { openSession } from '../access/open-session.ts';
import {
  openCredential,
  readCredentials,
  type OpenCredential,
} from '../identity/service/credential.ts';
import { namedIssuer, verifyServiceToken } from '../identity/service/token.ts';
import type { DevicePeer } from '../live/peers.ts';
import type { Services } from '../services.ts';
import type { Session, User } from '../store/index.ts';
import { verifyDevice } from './device-posture.ts';
import { sessionFactsOf } from './device-session.ts';

type Request = Extract<FromDevice, { type: 'service_challenge' | 'service_sign_in' }>;
type ServiceSignIn = Extract<Request, { type: 'service_sign_in' }>;

/** How long a nonce may be signed. */
const nonceLifeMs = 60_000;

/** The nonce that each channel was given last; it serves once, on that channel. */
const nonces = new WeakMap<DevicePeer, { readonly nonce: string; readonly untilMs: number }>();

/** What proved a service. */
interface Proved {
  readonly credential: OpenCredential;
  readonly method: 'key' | 'token';
}

/** Signs services in: machines without anybody to ask. */
export async function answerService(
  services: Services,
  peer: DevicePeer,
  request: Request,
): Promise<ToDevice> {
  const { id } = request;
  if (request.type === 'service_challenge') {
    const nonce = randomBytes(32).toString('base64url');
    nonces.set(peer, { nonce, untilMs: services.clock.nowMs() + nonceLifeMs });
    return { type: 'service_nonce', id, nonce };
  }
  try {
    const session = await signIn(services, peer, request);
    return {
      type: 'signed_in',
      id,
      session: await sessionFactsOf(services, session, peer.version),
    };
  } catch (thrown) {
    const error = toZtnaError(thrown);
    await services.refusals.record(peer.address, {
      actor: `device:${peer.id}`,
      action: 'session.sign_in',
      subject: peer.id,
      user: request.service,
      details: { code: error.code, reason: error.reason ?? null, address: peer.address },
    });
    throw error;
  }
}

async function signIn(
  services: Services,
  peer: DevicePeer,
  request: ServiceSignIn,
): Promise<Session> {
  const { store, clock, risk } = services;
  const given = nonces.get(peer);
  nonces.delete(peer);
  const user = await findService(services, peer, request.service);
  const credentials = (await readCredentials(store.db, user.id)).map(openCredential);
  const { proof } = request;
  const proved =
    proof.kind === 'key'
      ? proveByKey(services, peer, user, credentials, proof.statement, given)
      : await proveByToken(services, credentials, proof.token);
  const { credential, method } = proved;
  const session = await store.write(async (tx) => {
    const nowMs = clock.nowMs();
    // Asked again: it may have been taken away while an issuer was asked.
    const used = await tx
      .updateTable('serviceCredentials')
      .set({ lastUsedAtMs: nowMs })
      .where('id', '=', credential.id)
      .returning('id')
      .executeTakeFirst();
    if (!used) throw refused('service_credential_gone');
    const proofOfService = {
      user: user.id,
      provider: 'service',
      methods: [method],
      acr: '',
      authenticatedAtMs: nowMs,
      grant: null,
    };
    const limits = { idleMs: credential.sessionMs, absoluteMs: credential.sessionMs };
    return openSession(services, tx, peer.id, proofOfService, peer.address, limits);
  });
  risk.note({ kind: 'sign_in', user: user.id, device: peer.id, app: null, address: peer.address });
  verifyDevice(services, peer.id);
  return session;
}

/** The service whose device asks; others are refused before anybody outside is asked about them. */
async function findService({ store }: Services, peer: DevicePeer, name: string): Promise<User> {
  const user = await store.db
    .selectFrom('users')
    .innerJoin('devices', 'devices.userId', 'users.id')
    .selectAll('users')
    .where('devices.id', '=', peer.id)
    .executeTakeFirst();
  if (user?.kind !== 'service') throw refused('service_unknown');
  if (user.name !== name) throw refused('device_not_of_user');
  return user;
}

function proveByKey(
  { clock }: Services,
  peer: DevicePeer,
  user: User,
  credentials: readonly OpenCredential[],
  statement: string,
  given: { readonly nonce: string; readonly untilMs: number } | undefined,
): Proved {
  for (const credential of credentials) {
    if (credential.kind !== 'key') continue;
    const key = verifyingKey(Buffer.from(credential.publicKey, 'base64url'));
    if (statement.split('.')[1] !== key.keyId) continue;
    const proof = verifyProof(statement, key);
    const isMeant = proof.service === user.name && proof.device === peer.id;
    if (!isMeant) throw refused('service_proof_other');
    if (given?.nonce !== proof.nonce || clock.nowMs() > given.untilMs) {
      throw refused('service_nonce_wrong');
    }
    return { credential, method: 'key' };
  }
  throw refused('service_key_unknown');
}

function verifyProof(statement: string, key: ReturnType<typeof verifyingKey>) {
  try {
    return verifyStatement('service', serviceProofSchema, statement, [key]);
  } catch (cause) {
    throw refused('service_proof_wrong', cause);
  }
}

async function proveByToken(
  { clock }: Services,
  credentials: readonly OpenCredential[],
  token: string,
): Promise<Proved> {
  const issuer = namedIssuer(token);
  if (issuer === undefined) throw refused('token_malformed');
  let last: unknown = refused('token_issuer');
  for (const credential of credentials) {
    if (credential.kind !== 'token' || credential.settings.issuer !== issuer) continue;
    try {
      await verifyServiceToken(token, credential.settings, clock.nowMs());
      return { credential, method: 'token' };
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

function refused(reason: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason, cause });
}
