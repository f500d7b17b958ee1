import { randomInt } from 'node:crypto';
import { refreshTokenGrant, ResponseBodyError } from 'openid-client';
import type { Selectable } from 'kysely';
import type { SessionId } from '../../../../protocol/index.ts';
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

/** Sessions looked at in one turn, which providers share, and how many of one at once. */
const maxAtOnce = 64;
const maxOfProvider = 4;
/** In a turn no session is begun with later than this: a slow provider keeps the others waiting no longer. */
const turnMs = 10_000;
/** One control plane is at a session for so long at most; asking takes less. */
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

/** Those whose turn it is, of each provider its share, kept from other control planes. */
async function claimDue({ store, clock }: Services): Promise<Grant[]> {
  const nowMs = clock.nowMs();
  const due = store.db
    .selectFrom('providerGrants')
    .where('nextCheckAtMs', '<=', nowMs)
    .where('claimedUntilMs', '<=', nowMs);
  const providers = await due.select('provider').distinct().execute();
  const ofEach = due
    .select('sessionId')
    .orderBy('nextCheckAtMs')
    .limit(Math.ceil(maxAtOnce / Math.max(providers.length, 1)));
  const ids: SessionId[] = [];
  for (const { provider } of providers) {
    const rows = await ofEach.where('provider', '=', provider).execute();
    ids.push(...rows.map(({ sessionId }) => sessionId));
  }
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

/**
 * A session may have waited until its claim ran out: false where another control plane has it, or asked with its tokens. To show
 * a provider tokens that were replaced is taken for theft, and ends the session there.
 */
async function claimAgain({ store, clock }: Services, grant: Grant): Promise<boolean> {
  const claimed = await store.write((tx) =>
    tx
      .updateTable('providerGrants')
      .set({ claimedUntilMs: clock.nowMs() + claimMs })
      .where('sessionId', '=', grant.sessionId)
      .where('claimedUntilMs', '=', grant.claimedUntilMs)
      .where('sealedTokens', '=', grant.sealedTokens)
      .returning('sessionId')
      .executeTakeFirst(),
  );
  return claimed !== undefined;
}

/** Once one of them could not be asked about, the others wait for their next turn, too. */
async function recheckAt(
  services: Services,
  name: string,
  grants: readonly Grant[],
): Promise<void> {
  const untilMs = performance.now() + turnMs;
  const waiting = [...grants];
  const failed: SessionId[] = [];
  let failure: string | undefined;
  const work = async () => {
    while (failure === undefined && performance.now() < untilMs) {
      const grant = waiting.shift();
      if (!grant) return;
      const reason = await recheck(services, name, grant);
      if (reason === undefined) continue;
      failed.push(grant.sessionId);
      failure ??= reason;
    }
  };
  await Promise.all(Array.from({ length: maxOfProvider }, work));
  if (failure !== undefined) await noteUnreachable(services, name, { failed, waiting, failure });
  else if (waiting.length > 0) await leaveForNextTurn(services, waiting);
  services.providers.noteReachable(name, failure, services.logger);
}

/** Asks about one session; answers why that could not be done, or undefined once it was. */
async function recheck(
  services: Services,
  name: string,
  grant: Grant,
): Promise<string | undefined> {
  const { store, sealer } = services;
  let provider: OpenProvider;
  try {
    provider = await services.providers.open(name);
  } catch (error) {
    const { reason } = toRefusal(error);
    if (reason !== 'provider_unknown') return reason ?? 'provider_unreachable';
    await store.write(async (tx) => {
      await refuse(services, tx, grant);
      await setProvidedGroups(services, tx, grant.userId, sourceOf(name), []);
    });
    return undefined; // it was removed: there is nobody to vouch for the session
  }
  if (!(await claimAgain(services, grant))) return undefined;
  const kept = JSON.parse(
    sealer.open(grant.sealedTokens, aboutTokens(grant.sessionId)),
  ) as KeptTokens;
  if (kept.refreshToken === null) {
    await store.write((tx) => noteAsked(services, tx, provider, grant, null));
    return undefined; // it gave nothing to ask with
  }
  let current = grant;
  try {
    const tokens = await refreshTokenGrant(provider.config, kept.refreshToken);
    const next: KeptTokens = {
      refreshToken: tokens.refresh_token ?? kept.refreshToken,
      idToken: tokens.id_token ?? kept.idToken,
    };
    // Before anything else can fail: the one before counts no more.
    const sealedTokens = await store.write((tx) => noteAsked(services, tx, provider, grant, next));
    if (sealedTokens === undefined) return undefined;
    current = { ...grant, sealedTokens };
    const claims = await readClaimsAgain(provider, tokens, grant.subject);
    if (claims) await store.write((tx) => apply(services, tx, provider, grant, claims));
    return undefined;
  } catch (error) {
    if (error instanceof ResponseBodyError && refusals.includes(error.error)) {
      await store.write((tx) => refuseTokens(services, tx, current));
      return undefined;
    }
    return toRefusal(error).reason ?? 'provider_unreachable';
  }
}

/** Answers the tokens as they are sealed now; undefined where the session is over, or others asked with its tokens: what they were given counts. */
async function noteAsked(
  { clock, sealer }: Services,
  tx: Tx,
  { settings }: OpenProvider,
  { sessionId, sealedTokens }: Grant,
  tokens: KeptTokens | null,
): Promise<string | undefined> {
  const nowMs = clock.nowMs();
  const earlierMs = randomInt(Math.ceil(settings.recheckMs / 10)); // not all at once
  const noted = await tx
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
    .where('sealedTokens', '=', sealedTokens)
    .returning('sealedTokens')
    .executeTakeFirst();
  return noted?.sealedTokens;
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

/** A refusal is about the tokens that were shown: where there are others by now, it is their turn. */
async function refuseTokens(services: Services, tx: Tx, grant: Grant): Promise<void> {
  const { sessionId, sealedTokens } = grant;
  const shown = await tx
    .deleteFrom('providerGrants')
    .where('sessionId', '=', sessionId)
    .where('sealedTokens', '=', sealedTokens)
    .returning('sessionId')
    .executeTakeFirst();
  if (shown) {
    await refuse(services, tx, grant);
    return;
  }
  await tx
    .updateTable('providerGrants')
    .set({ nextCheckAtMs: services.clock.nowMs() })
    .where('sessionId', '=', sessionId)
    .execute();
}

async function leaveForNextTurn({ store }: Services, waiting: readonly Grant[]): Promise<void> {
  const ids = waiting.map(({ sessionId }) => sessionId);
  const claims = new Set(waiting.map(({ claimedUntilMs }) => claimedUntilMs));
  await store.write((tx) =>
    tx
      .updateTable('providerGrants')
      .set({ claimedUntilMs: 0 })
      .where('sessionId', 'in', ids)
      .where('claimedUntilMs', 'in', [...claims])
      .execute(),
  );
}

/** All of a provider whose turn it is wait, but for those that another control plane is at. */
async function noteUnreachable(
  { store, clock }: Services,
  provider: string,
  how: {
    readonly failed: readonly SessionId[];
    readonly waiting: readonly Grant[];
    readonly failure: string;
  },
): Promise<void> {
  const nowMs = clock.nowMs();
  const ours = [...how.failed, ...how.waiting.map(({ sessionId }) => sessionId)];
  await store.write(async (tx) => {
    const note = (nextCheckAtMs: number) =>
      tx
        .updateTable('providerGrants')
        .set((eb) => ({
          nextCheckAtMs,
          claimedUntilMs: 0,
          unreachableSinceMs: eb.fn.coalesce('unreachableSinceMs', eb.val(nowMs)),
          lastError: how.failure,
        }))
        .where('provider', '=', provider);
    // Behind the others: it may be about one of them alone.
    await note(nowMs + retryMs + 1)
      .where('sessionId', 'in', how.failed)
      .execute();
    await note(nowMs + retryMs)
      .where('nextCheckAtMs', '<=', nowMs)
      .where((eb) => eb.or([eb('claimedUntilMs', '<=', nowMs), eb('sessionId', 'in', ours)]))
      .execute();
  });
}
