import { refuseSet, verifySet, type VerifiedSet } from './set.ts';
import { effectOf, type SignalEffect } from './effect.ts';
import type { EffectTarget, SignalEffects } from './effects.ts';
import type { KeyFinder } from './keys.ts';
import { maxAheadMs } from './limits.ts';
import { noteMark, type Said } from './marks.ts';
import { findSubject, parseSubject, type FoundSubject, type SubjectMap } from './subject.ts';
import type { ReceiveSettings } from '../../signal-settings.ts';
import type { Services } from '../services.ts';
import type { Tx } from '../store/index.ts';

/** A stream of tokens with what it takes to read them. */
export interface ReceivedStream {
  readonly settings: ReceiveSettings;
  readonly findKey: KeyFinder;
  readonly map: SubjectMap;
}

export interface Receipt {
  readonly jti: string;
  /** The token had come before: nothing was done again. */
  readonly isDuplicate: boolean;
}

/** What became of an event. */
interface Outcome {
  /** A word for the audit log. */
  readonly effect: string;
  readonly tunnelsEnded: number;
}

/**
 * Verifies a token and carries its event out, in one transaction with the note that it came and the audit record.
 * Once this resolves all of that is durable. Throws ERR_STATEMENT_REFUSED (see `verifySet`), or ERR_RELAY_UNAVAILABLE
 * where the token may be good and should come again.
 */
export async function receiveSet(
  services: Services,
  effects: SignalEffects,
  stream: ReceivedStream,
  token: string,
): Promise<Receipt> {
  const { settings, findKey } = stream;
  const { issuer, audience, maxAgeMs, name } = settings;
  const nowMs = services.clock.nowMs();
  const set = await verifySet(token, { issuer, audience, maxAgeMs, findKey, nowMs });
  const effect = effectOf(set.event);
  const isAboutStream = effect.kind === 'stream_verified' || effect.kind === 'stream_updated';
  const named = isAboutStream ? null : parseSubject(set.subject);
  const isDuplicate = await services.store.write(async (tx) => {
    // Whoever grants waits until this is done, and what is granted later knows of it.
    if (effect.kind !== 'none' && !isAboutStream) await services.store.lockOrder(tx, 'revocation');
    if (!(await noteToken(tx, name, set, maxAgeMs))) return true;
    const rules = { issuer, subjects: settings.subjects, map: stream.map };
    const found = named && (await findSubject(tx, named, rules));
    const outcome = await carryOut(services, effects, tx, { stream, set, effect, found });
    await noteEvent(tx, name, services.clock.nowMs(), effect);
    await record(services, tx, { stream, set, found, outcome });
    return false;
  });
  return { jti: set.jti, isDuplicate };
}

/** Answers false when the same token was noted before. Throws when another one had its `jti`. */
async function noteToken(
  tx: Tx,
  stream: string,
  { jti, digest, issuedAtMs }: VerifiedSet,
  maxAgeMs: number,
): Promise<boolean> {
  const noted = await tx
    .insertInto('signalTokens')
    .values({ stream, jti, digest, expiresAtMs: issuedAtMs + maxAgeMs + maxAheadMs })
    .onConflict((conflict) => conflict.doNothing())
    .returning('jti')
    .executeTakeFirst();
  if (noted) return true;
  const known = await tx
    .selectFrom('signalTokens')
    .select('digest')
    .where('stream', '=', stream)
    .where('jti', '=', jti)
    .executeTakeFirst();
  if (known?.digest === digest) return false;
  throw refuseSet('invalid_request', 'another token had this jti');
}

interface Case {
  readonly stream: ReceivedStream;
  readonly set: VerifiedSet;
  readonly effect: SignalEffect;
  readonly found: FoundSubject | null;
}

async function carryOut(
  services: Services,
  effects: SignalEffects,
  tx: Tx,
  one: Case,
): Promise<Outcome> {
  const { stream, set, effect, found } = one;
  const reason = `signal_${set.event.type.replaceAll('-', '_')}`;
  const done = (tunnelsEnded: number): Outcome => ({ effect: effect.kind, tunnelsEnded });
  const nothing = (why: string): Outcome => ({ effect: `none: ${why}`, tunnelsEnded: 0 });
  if (effect.kind === 'none') return nothing(effect.why);
  if (effect.kind === 'stream_verified' || effect.kind === 'stream_updated') return done(0);
  const target = found && narrowest(found);
  if (!found || !target) return nothing('subject_unknown');
  switch (effect.kind) {
    case 'end_sessions':
      return done(await effects.endSessions(tx, target, reason));
    case 'sign_in_again':
      return done(await effects.requireSignIn(tx, target, reason));
    case 'step_up':
      return done(await effects.requireStepUp(tx, target, reason));
    case 'disable_user':
      if (!found.user) return nothing('subject_is_no_user');
      return done(await effects.disableUser(tx, found.user, reason));
    case 'restrict_device':
    case 'lift_device': {
      const { device } = found;
      if (!device) return nothing('subject_is_no_device');
      const isActive = effect.kind === 'restrict_device';
      const said = { ...mark(one, 'device', 'device', device.id), points: 0, isActive };
      if (!(await noteMark(tx, { ...said, untilMs: Number.MAX_SAFE_INTEGER }))) {
        return nothing('nothing_new');
      }
      const { name } = stream.settings;
      return done(await effects.setRestriction(tx, device, name, isActive));
    }
    case 'add_risk':
    case 'remove_risk': {
      const row = found[effect.of];
      if (!row) return nothing(`subject_is_no_${effect.of}`);
      const on = { kind: effect.of, row } as EffectTarget;
      const points = effect.kind === 'add_risk' ? effect.points : 0;
      const untilMs = services.clock.nowMs() + stream.settings.riskMs;
      const said = { ...mark(one, 'risk', effect.of, row.id), points, untilMs };
      if (!(await noteMark(tx, { ...said, isActive: points > 0 }))) return nothing('nothing_new');
      return done(await effects.reviewRisk(tx, on));
    }
  }
}

function mark(
  { stream, set }: Case,
  kind: Said['kind'],
  subjectKind: Said['subjectKind'],
  subjectId: string,
): Pick<Said, 'stream' | 'kind' | 'subjectKind' | 'subjectId' | 'happenedAtMs'> {
  const { happenedAtMs } = set.event;
  return { stream: stream.settings.name, kind, subjectKind, subjectId, happenedAtMs };
}

function narrowest({ session, device, user }: FoundSubject): EffectTarget | undefined {
  if (session) return { kind: 'session', row: session };
  if (device) return { kind: 'device', row: device };
  return user ? { kind: 'user', row: user } : undefined;
}

async function noteEvent(tx: Tx, name: string, nowMs: number, effect: SignalEffect): Promise<void> {
  const told = {
    lastEventAtMs: nowMs,
    lastError: null,
    ...(effect.kind === 'stream_verified' ? { lastVerifiedAtMs: nowMs } : {}),
    ...(effect.kind === 'stream_updated' ? { status: effect.status } : {}),
  };
  await tx
    .updateTable('signalStreams')
    .set((eb) => ({ ...told, accepted: eb('accepted', '+', 1) }))
    .where('name', '=', name)
    .execute();
}

async function record(
  services: Services,
  tx: Tx,
  { stream, set, found, outcome }: Omit<Case, 'effect'> & { readonly outcome: Outcome },
): Promise<void> {
  const { event, jti } = set;
  const target = found && narrowest(found);
  const isAddress = found !== null && !target;
  await services.audit.append(
    {
      actor: `signal:${stream.settings.name}`,
      action: 'signal.receive',
      subject: target?.row.id ?? (isAddress ? JSON.stringify(set.subject).slice(0, 200) : 'stream'),
      outcome: 'ok',
      user: found?.user?.name ?? null,
      details: {
        event: event.type === 'unknown' ? event.uri : event.type,
        jti,
        effect: outcome.effect,
        tunnelsEnded: outcome.tunnelsEnded,
        issuedAtMs: set.issuedAtMs,
        happenedAtMs: event.happenedAtMs,
        initiator: event.initiator,
        why: event.why,
        ...(target ? { target: target.kind } : {}),
      },
    },
    tx,
  );
}
