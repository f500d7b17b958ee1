import { randomInt } from 'node:crypto';
import { refreshTokenGrant, ResponseBodyError } from 'openid-client';
import type { Selectable } from 'kysely';
import { endSession } from '../../access/end-session.ts';
import type { Services } from '../../services.ts';
import type { ProviderGrantsTable, Tx } from '../../store/index.ts';
import { checkDomain, groupsOf, type Claims } from './claims.ts';
import { toRefusal } from './failure.ts';
import type { OpenProvider } from './provider-book.ts';
import type { ProviderSettings } from './settings.ts';
import { readClaimsAgain } from './tokens.ts';
import { setProvidedGroups, sourceOf } from './users.ts';

type Grant = Selectable<ProviderGrantsTable>;

/** What a provider gave for a session, as it is sealed. */
export interface KeptTokens {
  readonly refreshToken: string | null;
  readonly idToken: string;
}

/** Sessions looked at in one turn, and how many of one provider at once. */
const maxAtOnce = 64;
const maxOfProvider = 4;
/** One control plane is at a session for so long at most. */
const claimMs = 60_000;
/** Who could not be asked is asked again after this, or sooner where that is its usual turn. */
const retryMs = 30_000;

/** What providers say when a person may not go on, rather than when something is wrong with us or them. */
const refusals: readonly string[] = [
  ...['invalid_grant', 'access_denied', 'login_required', 'interaction_required'],
  'consent_required',
];

export function aboutTokens(session: string): string {
  return `tokens ${session}`;
}

/**
 * Asks providers again whether those who signed in there still may, and which groups they are in. A refusal ends the session, and
 * a new sign-in mends that; a provider that cannot be asked leaves sessions as they are, which is noted.
 */
export async function recheckSessions(services: Services): Promise<void> {
  const byProvider = new Map<string, Grant[]>();
  for (const grant of await claimDue(services)) {
    byProvider.set(grant.provider, [...(byProvider.get(grant.provider) ?? []), grant]);
  }
  await Promise.all([...byProvider].map(([name, grants]) => recheckAt(services, name, grants)));
}

/** Those whose turn it is, kept from other control planes. */
async function claimDue({ store, clock }: Services): Promise<Grant[]> {
  const nowMs = clock.nowMs();
  const due = store.db
    .selectFrom('providerGrants')
    .where('nextCheckAtMs', '<=', nowMs)
    .where('claimedUntilMs', '<=', nowMs)
    .orderBy('nextCheckAtMs')
    .limit(maxAtOnce);
  const ids = (await due.select('sessionId').execute()).map(({ sessionId }) => sessionId);
  if (ids.length === 0) return [];
  return store.write(async (tx) => {
    await tx
      .deleteFrom('providerGrants')
      .where('sessionId', 'in', ids)
      .where(
        'sessionId',
        'in',
        tx.selectFrom('sessions').select('id').where('endedAtMs', 'is not', null),
      )
      .execute();
    return tx
      .updateTable('providerGrants')
      .set({ claimedUntilMs: nowMs + claimMs })
      .where('sessionId', 'in', ids)
      .where('claimedUntilMs', '<=', nowMs)
      .returningAll()
      .execute();
  });
}

/** Once one of them could not be asked about, the others wait for their next turn, too. */
async function recheckAt(
  services: Services,
  name: string,
  grants: readonly Grant[],
): Promise<void> {
  const waiting = [...grants];
  let failure: string | undefined;
  const work = async () => {
    for (let grant = waiting.shift(); grant; grant = waiting.shift()) {
      failure ??= await recheck(services, name, grant);
      if (failure !== undefined) await noteUnreachable(services, grant, failure);
    }
  };
  await Promise.all(Array.from({ length: maxOfProvider }, work));
  services.providers.noteReachable(name, failure, services.logger);
}

/** Asks about one session; answers why that could not be done, or undefined once it was. */
async function recheck(
  services: Services,
  name: string,
  grant: Grant,
): Promise<string | undefined> {
  const { store, sealer } = services;
  const kept = JSON.parse(
    sealer.open(grant.sealedTokens, aboutTokens(grant.sessionId)),
  ) as KeptTokens;
  let provider: OpenProvider;
  try {
    provider = await services.providers.open(name);
  } catch (error) {
    return toRefusal(error).reason ?? 'provider_unreachable';
  }
  if (kept.refreshToken === null) {
    await store.write((tx) => noteAsked(services, tx, provider, grant, null));
    return undefined; // it gave nothing to ask with
  }
  try {
    const tokens = await refreshTokenGrant(provider.config, kept.refreshToken);
    const next: KeptTokens = {
      refreshToken: tokens.refresh_token ?? kept.refreshToken,
      idToken: tokens.id_token ?? kept.idToken,
    };
    // Before anything else can fail: the one before counts no more.
    await store.write((tx) => noteAsked(services, tx, provider, grant, next));
    const claims = await readClaimsAgain(provider, tokens, grant.subject);
    if (claims) await store.write((tx) => apply(services, tx, provider, grant, claims));
    return undefined;
  } catch (error) {
    if (error instanceof ResponseBodyError && refusals.includes(error.error)) {
      await store.write((tx) => refuse(services, tx, grant));
      return undefined;
    }
    return toRefusal(error).reason ?? 'provider_unreachable';
  }
}

async function noteAsked(
  { clock, sealer }: Services,
  tx: Tx,
  { settings }: OpenProvider,
  { sessionId }: Grant,
  tokens: KeptTokens | null,
): Promise<void> {
  const nowMs = clock.nowMs();
  const earlierMs = randomInt(Math.ceil(settings.recheckMs / 10)); // not all at once
  await tx
    .updateTable('providerGrants')
    .set({
      nextCheckAtMs: nowMs + settings.recheckMs - earlierMs,
      claimedUntilMs: 0,
      unreachableSinceMs: null,
      ...(tokens
        ? {
            sealedTokens: sealer.seal(JSON.stringify(tokens), aboutTokens(sessionId)),
            lastOkAtMs: nowMs,
            lastError: null,
          }
        : { lastError: 'no_refresh_token' }),
    })
    .where('sessionId', '=', sessionId)
    .execute();
}

async function apply(
  services: Services,
  tx: Tx,
  { settings, name }: OpenProvider,
  grant: Grant,
  claims: Claims & { readonly sub: string },
): Promise<void> {
  if (claims.sub !== grant.subject || !passes(() => checkDomain(claims, settings))) {
    await refuse(services, tx, grant);
    return;
  }
  const groups = groupsNow(claims, settings);
  if (groups) await setProvidedGroups(services, tx, grant.userId, sourceOf(name), groups);
}

/** Where the provider no longer tells which: none that we know of. */
function groupsNow(claims: Claims, settings: ProviderSettings): string[] | null {
  try {
    return groupsOf(claims, settings);
  } catch {
    return [];
  }
}

function passes(check: () => void): boolean {
  try {
    check();
    return true;
  } catch {
    return false;
  }
}

/** The provider lets the user go on no longer. */
async function refuse(services: Services, tx: Tx, { sessionId, provider }: Grant): Promise<void> {
  await endSession(services, tx, sessionId, {
    reason: 'provider_refused',
    actor: `provider:${provider}`,
    isMendedBySignIn: true,
  });
  await tx.deleteFrom('providerGrants').where('sessionId', '=', sessionId).execute();
}

async function noteUnreachable(
  { store, clock }: Services,
  { sessionId, unreachableSinceMs }: Grant,
  lastError: string,
): Promise<void> {
  const nowMs = clock.nowMs();
  await store.write((tx) =>
    tx
      .updateTable('providerGrants')
      .set({
        nextCheckAtMs: nowMs + retryMs,
        claimedUntilMs: 0,
        unreachableSinceMs: unreachableSinceMs ?? nowMs,
        lastError,
      })
      .where('sessionId', '=', sessionId)
      .execute(),
  );
}
