import { createHash } from 'node:crypto';
import { errors, jwtVerify, type JWTPayload } from 'jose';
import { buildEndSessionUrl, tokenRevocation } from 'openid-client';
import * as v from 'valibot';
import type { DeviceId } from '../../../../protocol/index.ts';
import { endSession } from '../../access/end-session.ts';
import type { Services } from '../../services.ts';
import type { Tx } from '../../store/index.ts';
import { refusal, toRefusal } from './failure.ts';
import { acceptedAlgorithms, type OpenProvider } from './provider-book.ts';
import { aboutTokens, type KeptTokens } from './recheck.ts';

/** Longer addresses do not fit into what an agent is told. */
const maxUrlLength = 4_096;

/** What is left at a provider when a device signs out. */
export interface LeftAt {
  readonly provider: string;
  readonly tokens: KeptTokens;
}

/** What the device's session is at a provider with, taken out of the store; null for none. */
export async function takeLeft(
  { sealer }: Services,
  tx: Tx,
  device: DeviceId,
): Promise<LeftAt | null> {
  const row = await tx
    .selectFrom('providerGrants')
    .innerJoin('sessions', 'sessions.id', 'providerGrants.sessionId')
    .selectAll('providerGrants')
    .where('sessions.deviceId', '=', device)
    .where('sessions.endedAtMs', 'is', null)
    .executeTakeFirst();
  if (!row) return null;
  await tx.deleteFrom('providerGrants').where('sessionId', '=', row.sessionId).execute();
  const tokens = JSON.parse(
    sealer.open(row.sealedTokens, aboutTokens(row.sessionId)),
  ) as KeptTokens;
  return { provider: row.provider, tokens };
}

/**
 * Gives back to a provider what it gave, without waiting for it. Answers where the person ends the provider's own session; null where
 * there is no such page, or the provider cannot be asked. Never throws.
 */
export async function leaveProvider(
  services: Services,
  { provider: name, tokens }: LeftAt,
): Promise<string | null> {
  const { logger } = services;
  try {
    const { config, metadata } = await services.providers.open(name);
    const { refreshToken, idToken } = tokens;
    if (refreshToken !== null && metadata.revocation_endpoint !== undefined) {
      tokenRevocation(config, refreshToken, { token_type_hint: 'refresh_token' }).catch(
        (error: unknown) => {
          const { reason } = toRefusal(error);
          logger.info('provider_not_told', { provider: name, reason: reason ?? '' });
        },
      );
    }
    if (metadata.end_session_endpoint === undefined) return null;
    const hinted = buildEndSessionUrl(config, idToken === '' ? {} : { id_token_hint: idToken });
    const url = hinted.href.length <= maxUrlLength ? hinted : buildEndSessionUrl(config, {});
    return url.href.length <= maxUrlLength ? url.href : null;
  } catch (error) {
    logger.info('provider_not_told', { provider: name, reason: toRefusal(error).reason ?? '' });
    return null;
  }
}

const logoutEvent = 'http://schemas.openid.net/event/backchannel-logout';
/** A token that tells of a logout is about just now. */
const maxTokenAgeS = 600;
const maxAheadS = 60;

const claimsSchema = v.object({
  jti: v.pipe(v.string(), v.minLength(1), v.maxLength(256)),
  iat: v.pipe(v.number(), v.finite(), v.minValue(0)),
  sub: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(256))),
  sid: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(256))),
  events: v.record(v.string(), v.looseObject({})),
  nonce: v.optional(v.never()),
});

/**
 * Ends the sessions that a provider says are over (OpenID Connect Back-Channel Logout 1.0). Answers how many. Throws
 * ERR_IDENTITY_SIGN_IN_REFUSED: `issuer_wrong`, `audience_wrong`, `algorithm_refused`, `signature_wrong`, `token_expired`,
 * `token_malformed`, `token_replayed`; or ERR_RELAY_UNAVAILABLE while its keys cannot be read.
 */
export async function logOutByProvider(
  services: Services,
  name: string,
  token: string,
): Promise<number> {
  const { store, clock } = services;
  let provider;
  let payload;
  try {
    provider = await services.providers.open(name);
    payload = await verifyLogout(provider, token);
  } catch (error) {
    throw toRefusal(error);
  }
  const parsed = v.safeParse(claimsSchema, payload);
  if (!parsed.success) throw refusal('token_malformed');
  const { jti, sub, sid, events } = parsed.output;
  if (!Object.hasOwn(events, logoutEvent)) throw refusal('token_malformed');
  if (sub === undefined && sid === undefined) throw refusal('token_malformed');
  return store.write(async (tx) => {
    const isNew = await tx
      .insertInto('signalTokens')
      .values({
        stream: `logout ${name}`,
        jti,
        digest: createHash('sha256').update(token).digest('hex'),
        expiresAtMs: clock.nowMs() + 2 * maxTokenAgeS * 1_000,
      })
      .onConflict((conflict) => conflict.doNothing())
      .returning('jti')
      .executeTakeFirst();
    if (!isNew) throw refusal('token_replayed');
    let grants = tx.selectFrom('providerGrants').select('sessionId').where('provider', '=', name);
    grants = grants.where((eb) => {
      const bySubject = sub === undefined ? [] : [eb('subject', '=', sub)];
      if (sid === undefined) return eb.and(bySubject);
      // Where sign-ins do not tell which session they are of, it may be any of the person's.
      const unnamed = bySubject.map((isSubject) => eb.and([eb('sid', 'is', null), isSubject]));
      return eb.or([eb('sid', '=', sid), ...unnamed]);
    });
    let count = 0;
    for (const { sessionId } of await grants.execute()) {
      const how = { reason: 'provider_logout', actor: `provider:${name}`, isMendedBySignIn: false };
      if (await endSession(services, tx, sessionId, how)) count += 1;
      await tx.deleteFrom('providerGrants').where('sessionId', '=', sessionId).execute();
    }
    return count;
  });
}

async function verifyLogout(
  { keys, metadata, settings }: OpenProvider,
  token: string,
): Promise<JWTPayload> {
  try {
    const { payload } = await jwtVerify(token, keys, {
      issuer: metadata.issuer,
      audience: settings.clientId,
      algorithms: [...acceptedAlgorithms],
      clockTolerance: maxAheadS,
      maxTokenAge: maxTokenAgeS,
    });
    return payload;
  } catch (error) {
    throw ofJose(error);
  }
}

function ofJose(error: unknown): unknown {
  if (error instanceof errors.JOSEAlgNotAllowed) return refusal('algorithm_refused', error);
  if (error instanceof errors.JWSSignatureVerificationFailed) {
    return refusal('signature_wrong', error);
  }
  if (error instanceof errors.JWKSNoMatchingKey) return refusal('key_unknown', error);
  if (error instanceof errors.JWTExpired) return refusal('token_expired', error);
  if (error instanceof errors.JWTClaimValidationFailed) {
    const { claim } = error;
    if (claim === 'iss') return refusal('issuer_wrong', error);
    if (claim === 'aud') return refusal('audience_wrong', error);
    return refusal(claim === 'iat' ? 'token_expired' : 'token_malformed', error);
  }
  return error instanceof errors.JOSEError ? refusal('token_malformed', error) : error;
}
