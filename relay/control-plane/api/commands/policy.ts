import * as v from 'valibot';
import { ZtnaError } from '../../../../protocol/index.ts';
import { toPolicyRequest } from '../../grant/decide.ts';
import { disqualificationOf, readApp, type SubjectFacts } from '../../grant/facts.ts';
import { likelySubject } from '../../grant/likely-subject.ts';
import {
  checkPolicies,
  explainDecision,
  explainRules,
  PolicyEngine,
  readPolicy,
  smallestChange,
  storePolicy,
  toPublicRule,
} from '../../policy/index.ts';
import { reevaluate } from '../../verification/reevaluate.ts';
import { knowTunnels } from '../../live/replica.ts';
import { defineCommand, type Command } from '../command.ts';
import { getApp, getDevice, getUser } from '../lookup.ts';
import { none, policyFiles, word } from './schema.ts';
import type { CheckedPolicies } from '../../policy/index.ts';
import type { Services } from '../../services.ts';
import type { Device, Reader, User } from '../../store/index.ts';

/** Thrown to undo a dry run. */
class DryRun extends Error {
  readonly tunnelsEnded: number;
  readonly tunnelsSuspended: number;
  constructor(tunnelsEnded: number, tunnelsSuspended: number) {
    super('dry run');
    this.tunnelsEnded = tunnelsEnded;
    this.tunnelsSuspended = tunnelsSuspended;
  }
}

/** Makes checked files the whole policy and ends what it now denies, or changes nothing at all. */
async function apply(
  services: Services,
  checked: CheckedPolicies,
  actor: string,
  isDryRun: boolean,
): Promise<{ version: number; tunnelsEnded: number; tunnelsSuspended: number }> {
  const { store, clock, audit } = services;
  try {
    return await store.write(async (tx) => {
      await store.lockOrder(tx, 'revocation');
      const { version, digest } = await storePolicy(tx, {
        files: checked.files,
        actor,
        nowMs: clock.nowMs(),
      });
      const candidate = new PolicyEngine({ extraChecks: services.policy.extraChecks });
      candidate.activate(checked, version);
      // Never before the commit: a dry run, or a change that fails, must not decide anything for anybody else.
      store.afterCommit(tx, () => {
        services.policy = candidate;
      });
      store.announce(tx, 'policy');
      const all = await knowTunnels(services, tx, 'all');
      const { ended: tunnelsEnded, suspended: tunnelsSuspended } = await reevaluate(
        services,
        tx,
        all,
        'policy_changed',
        candidate,
      );
      await audit.append(
        {
          actor,
          action: 'policy.apply',
          subject: String(version),
          outcome: 'ok',
          details: { digest, files: Object.keys(checked.files), tunnelsEnded, tunnelsSuspended },
        },
        tx,
      );
      if (isDryRun) throw new DryRun(tunnelsEnded, tunnelsSuspended);
      return { version, tunnelsEnded, tunnelsSuspended };
    });
  } catch (error) {
    if (!(error instanceof DryRun)) throw error;
    const { tunnelsEnded, tunnelsSuspended } = error;
    return { version: services.policy.version, tunnelsEnded, tunnelsSuspended };
  }
}

async function devicesOf(db: Reader, user: User): Promise<Device[]> {
  return db
    .selectFrom('devices')
    .selectAll()
    .where('userId', '=', user.id)
    .where('state', '!=', 'revoked')
    .orderBy('lastSeenAtMs', 'desc')
    .execute();
}

async function explain(services: Services, subject: SubjectFacts, appName: string) {
  const app = await readApp(services.store.db, { name: appName });
  if (!app) throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `there is no app ${appName}` });
  const { policy } = services;
  const request = toPolicyRequest(policy, subject, app);
  const explained = explainDecision(policy, request);
  const blocked = disqualificationOf(subject);
  const allowed = explained.verdict === 'allow' && blocked === undefined;
  return { policy, request, explained, blocked, allowed };
}

function riskOf(subject: SubjectFacts, app: string) {
  const { score, contributions } = subject.riskOf(app);
  return { score, contributions };
}

export const policyCommands: readonly Command[] = [
  defineCommand(
    'policy.apply',
    'change',
    v.strictObject({ files: policyFiles, dryRun: v.optional(v.boolean(), false) }),
    async (services, args, actor) => {
      let checked: CheckedPolicies;
      try {
        checked = await checkPolicies(args.files, { extraChecks: services.policy.extraChecks });
      } catch (error) {
        if (!args.dryRun) {
          await services.audit.append({
            actor,
            action: 'policy.apply',
            subject: 'new',
            outcome: 'refused',
            details: { error: error instanceof Error ? error.message.slice(0, 500) : 'unknown' },
          });
        }
        throw error;
      }
      return apply(services, checked, actor, args.dryRun);
    },
  ),

  defineCommand('policy.show', 'read', none, async ({ store }) => {
    const active = await readPolicy(store.db);
    if (!active) {
      throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
        message: 'no policy is active, so everything is denied',
        hint: 'apply one: ztna-relay policy apply DIR',
      });
    }
    return active;
  }),

  defineCommand('policy.schema', 'read', none, ({ policy }) =>
    Promise.resolve({ schema: policy.schema }),
  ),

  defineCommand(
    'policy.why',
    'read',
    v.strictObject({ user: word, app: word, device: v.optional(word) }),
    async (services, args) => {
      const { db } = services.store;
      const user = await getUser(db, args.user);
      const device =
        args.device === undefined
          ? (await devicesOf(db, user))[0]
          : await getDevice(db, args.device);
      const subject = await likelySubject(services, db, user, device);
      const { policy, request, explained, blocked, allowed } = await explain(
        services,
        subject,
        args.app,
      );
      const rules = explainRules(policy, request, explained);
      return {
        user: user.name,
        app: args.app,
        device: device?.id ?? null,
        allowed,
        blockedBy: blocked ?? null,
        permittedBy: explained.permitting,
        forbiddenBy: explained.forbidding,
        errors: explained.errors,
        remedies: explained.remedies,
        conditions: explained.conditions,
        groups: subject.groups.map((group) => group.name),
        policyVersion: explained.policyVersion,
        rules: rules.map(toPublicRule),
        change: smallestChange(policy, request, explained, rules),
        risk: riskOf(subject, args.app),
      };
    },
  ),

  defineCommand('policy.who', 'read', v.strictObject({ app: word }), async (services, args) => {
    const { db } = services.store;
    await getApp(db, args.app);
    const users = await db.selectFrom('users').selectAll().orderBy('name').execute();
    const rows: Record<string, unknown>[] = [];
    for (const user of users) {
      const devices = await devicesOf(db, user);
      for (const device of devices.length > 0 ? devices : [undefined]) {
        const subject = await likelySubject(services, db, user, device);
        const { explained, allowed } = await explain(services, subject, args.app);
        if (!allowed) continue;
        rows.push({
          user: user.name,
          device: device?.id ?? null,
          allowed,
          policies: explained.reasons,
        });
      }
    }
    return rows;
  }),
];
