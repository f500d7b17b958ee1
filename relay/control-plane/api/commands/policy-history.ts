import { setImmediate as turn } from 'node:timers/promises';
import * as v from 'valibot';
import { ZtnaError } from '../../../../protocol/index.ts';
import {
  checkPolicies,
  explainDecision,
  explainRules,
  PolicyEngine,
  readPolicy,
  toPublicRule,
  unknownPosture,
  type PolicyRequest,
} from '../../policy/index.ts';
import { defineCommand, type Command } from '../command.ts';
import { policyFiles, word } from './schema.ts';
import type { Services } from '../../services.ts';
import type { Decision } from '../../store/index.ts';

/** Decisions read at once. */
const pageRows = 500;

/** How long the event loop is kept at one comparison. */
const sliceMs = 10;

/** What a stored decision was asked, or why policy was never asked. */
type Recorded = { readonly request: PolicyRequest } | { readonly unasked: string };

function recorded(row: Pick<Decision, 'inputsJson' | 'reasonsJson' | 'appId'>): Recorded {
  const reasons = JSON.parse(row.reasonsJson) as string[];
  if (row.appId === null) return { unasked: 'app_unknown' };
  const inputs = JSON.parse(row.inputsJson) as Partial<PolicyRequest>;
  if (!inputs.context || inputs.app === undefined) return { unasked: reasons[0] ?? 'unknown' };
  return { request: inputs as PolicyRequest };
}

/** The deployment's own checks at the time: what a recorded device was asked for beside the usual. */
function extraChecksIn({ context }: PolicyRequest): string[] {
  const usual = Object.keys(unknownPosture([]));
  return Object.keys(context.posture).filter((fact) => !usual.includes(fact));
}

/** Recorded facts as a later schema has them: what was not asked for then is unknown. */
function inWordsOf(engine: PolicyEngine, request: PolicyRequest): PolicyRequest {
  const now = unknownPosture(engine.extraChecks);
  const kept = Object.entries(request.context.posture).filter(([fact]) => fact in now);
  const posture = { ...now, ...Object.fromEntries(kept) };
  const since = { phishing_resistant: false, acr: '' };
  const authentication = Object.assign(since, request.context.authentication);
  return { ...request, context: { ...request.context, authentication, posture } };
}

/** States that forbid everything, so that policy is not asked. */
const stateReasons = [
  'session_ended',
  'device_revoked',
  'device_disabled',
  'device_pending',
  'user_disabled',
  'user_expired',
];

async function replay(services: Services, id: string) {
  const { db } = services.store;
  const row = await db
    .selectFrom('decisions')
    .selectAll()
    .where('id', '=', id as Decision['id'])
    .executeTakeFirst();
  if (!row) throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `there is no decision ${id}` });
  const reasons = JSON.parse(row.reasonsJson) as string[];
  const base = {
    decision: row.id,
    user: row.userId,
    app: row.appName,
    device: row.deviceId,
    decidedAtMs: row.decidedAtMs,
    confirmations: row.confirmations,
    lastConfirmedAtMs: row.lastConfirmedAtMs,
    policyVersion: row.policyVersion,
    recorded: { verdict: row.verdict, reasons },
  };
  const what = recorded(row);
  const [first = ''] = reasons;
  const unasked = 'unasked' in what ? what.unasked : stateReasons.includes(first) ? first : null;
  if (unasked !== null || 'unasked' in what) {
    return {
      ...base,
      replayed: null,
      isSame: true,
      unasked,
      conditions: [],
      remedies: [],
      rules: [],
    };
  }
  const extraChecks = extraChecksIn(what.request);
  const engine = new PolicyEngine({ extraChecks });
  if (row.policyVersion > 0) {
    const stored = await readPolicy(db, row.policyVersion);
    if (!stored) {
      throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
        message: `policy version ${String(row.policyVersion)} is no longer kept`,
      });
    }
    engine.activate(await checkPolicies(stored.files, { extraChecks }), stored.version);
  }
  const request = inWordsOf(engine, what.request);
  const explained = explainDecision(engine, request);
  const isSame = explained.verdict === row.verdict && sorted(explained.reasons) === sorted(reasons);
  return {
    ...base,
    replayed: { verdict: explained.verdict, reasons: explained.reasons },
    isSame,
    unasked: null,
    conditions: explained.conditions,
    remedies: explained.remedies,
    rules: explainRules(engine, request, explained).map(toPublicRule),
  };
}

function sorted(words: readonly string[]): string {
  return [...words].sort().join(' ');
}

interface Change {
  readonly user: string;
  readonly app: string;
  readonly change: 'gains' | 'loses';
  /** Distinct situations in which that is so. */
  situations: number;
  lastAtMs: number;
  /** The newest of them, for `policy replay`. */
  decision: string;
  readonly because: readonly string[];
}

/** What candidate files would have answered, in each situation of the past that differed, against the active policy. */
async function compare(services: Services, candidate: PolicyEngine, sinceMs: number) {
  const { db } = services.store;
  const active = services.policy;
  const seen = new Set<string>();
  const changes = new Map<string, Change>();
  let compared = 0;
  let before = { decidedAtMs: Number.MAX_SAFE_INTEGER, id: '' };
  let startedAtMs = performance.now();
  for (;;) {
    const rows = await db
      .selectFrom('decisions')
      .select(['id', 'inputsJson', 'reasonsJson', 'appId', 'inputDigest', 'decidedAtMs'])
      .where('lastConfirmedAtMs', '>=', sinceMs)
      .where((eb) =>
        eb.or([
          eb('decidedAtMs', '<', before.decidedAtMs),
          eb.and([
            eb('decidedAtMs', '=', before.decidedAtMs),
            eb('id', '<', before.id as Decision['id']),
          ]),
        ]),
      )
      .orderBy('decidedAtMs', 'desc')
      .orderBy('id', 'desc')
      .limit(pageRows)
      .execute();
    for (const row of rows) {
      if (performance.now() - startedAtMs > sliceMs) {
        await turn();
        startedAtMs = performance.now();
      }
      const what = recorded(row);
      if ('unasked' in what || seen.has(row.inputDigest)) continue;
      seen.add(row.inputDigest);
      compared += 1;
      const now = active.decide(inWordsOf(active, what.request));
      const then = candidate.decide(inWordsOf(candidate, what.request));
      if (now.verdict === then.verdict) continue;
      note(changes, row, what.request, {
        change: then.verdict === 'allow' ? 'gains' : 'loses',
        because: then.verdict === 'allow' ? then.reasons : now.reasons,
      });
    }
    const last = rows.at(-1);
    if (!last || rows.length < pageRows) return { compared, changes: [...changes.values()] };
    before = last;
  }
}

function note(
  changes: Map<string, Change>,
  row: Pick<Decision, 'id' | 'decidedAtMs'>,
  { user, app }: PolicyRequest,
  { change, because }: Pick<Change, 'change' | 'because'>,
): void {
  const key = JSON.stringify([user, app, change]);
  const known = changes.get(key);
  if (known) known.situations += 1;
  else {
    const { id, decidedAtMs } = row;
    changes.set(key, {
      user,
      app,
      change,
      situations: 1,
      lastAtMs: decidedAtMs,
      decision: id,
      because,
    });
  }
}

export const policyHistoryCommands: readonly Command[] = [
  defineCommand('policy.replay', 'read', v.strictObject({ decision: word }), (services, args) =>
    replay(services, args.decision),
  ),

  defineCommand(
    'policy.diff',
    'read',
    v.strictObject({
      files: policyFiles,
      overMs: v.pipe(v.number(), v.safeInteger(), v.minValue(1_000)),
    }),
    async (services, args) => {
      const { extraChecks } = services.policy;
      const candidate = new PolicyEngine({ extraChecks });
      candidate.activate(await checkPolicies(args.files, { extraChecks }), 0);
      const nowMs = services.clock.nowMs();
      const { compared, changes } = await compare(services, candidate, nowMs - args.overMs);
      changes.sort((a, b) => (a.app < b.app || (a.app === b.app && a.user < b.user) ? -1 : 1));
      return { compared, sinceMs: nowMs - args.overMs, changes };
    },
  ),
];
