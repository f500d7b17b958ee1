import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';
import { toZtnaError, type DeviceId } from '../../../protocol/index.ts';
import { toPolicyRequest } from '../grant/decide.ts';
import { readApps } from '../grant/facts.ts';
import { likelySubject } from '../grant/likely-subject.ts';
import { complianceChecks, complianceEveryMs } from '../limits.ts';
import { Throttle } from '../listener/throttle.ts';
import { explainDecision } from '../policy/index.ts';
import type { Services } from '../services.ts';
import type { Device, User } from '../store/index.ts';

/** How long the event loop is kept at one device. */
const sliceMs = 10;
/** Between one device and the next that waits, so many times as long as the one took is left to others. */
const idleShare = 4;
const longestPauseMs = 1_000;

/**
 * Notices when the posture of a device begins or ceases to keep its user from an app, and writes that down once, as
 * `device.compliance`, which others may be told of. A device that falls silent is none that says it is unhealthy.
 */
export class Compliance {
  /** What each device was held against last, and when, in control time. */
  readonly #checked = new Map<DeviceId, { readonly policy: number; readonly atMs: number }>();
  /** By device. */
  readonly #throttle = new Throttle(complianceChecks);
  readonly #due = new Set<DeviceId>();
  readonly #stopping = new AbortController();
  #work: Promise<void> | undefined;

  /** Hears that a device said something. One that says other things all the time is looked at now and then. */
  note(services: Services, device: DeviceId, hasChanged: boolean): void {
    const last = this.#checked.get(device);
    const nowMs = services.clock.nowMs();
    const isRecent = last !== undefined && nowMs < last.atMs + complianceEveryMs;
    if (isRecent && last.policy === services.policy.version && !hasChanged) return;
    if (!this.#throttle.take(device, nowMs)) {
      this.#checked.delete(device); // with its next statement
      return;
    }
    this.#due.add(device);
    this.#work ??= this.#run(services);
  }

  /** Resolves once nothing is left to look at. */
  async settled(): Promise<void> {
    await this.#work;
  }

  /** Leaves what is left to look at to whoever hears of those devices next. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#work;
  }

  async #run(services: Services): Promise<void> {
    const { signal } = this.#stopping;
    for (const device of this.#due) {
      if (signal.aborted) break;
      this.#due.delete(device);
      const beganAtMs = performance.now();
      const { policy, clock, logger } = services;
      this.#checked.set(device, { policy: policy.version, atMs: clock.nowMs() });
      try {
        await check(services, device);
      } catch (error) {
        this.#checked.delete(device); // with its next statement
        logger.warn('compliance_not_checked', { device, code: toZtnaError(error).code });
      }
      // A crowd that comes back has more urgent work for this process.
      const pauseMs = Math.min(idleShare * (performance.now() - beganAtMs), longestPauseMs);
      if (this.#due.size > 0) await delay(pauseMs, undefined, { signal }).catch(() => undefined);
    }
    this.#work = undefined; // in the turn that found nothing more to do
  }
}

async function check(services: Services, id: DeviceId): Promise<void> {
  const { store, audit } = services;
  const device = await store.db
    .selectFrom('devices')
    .selectAll()
    .where('id', '=', id)
    .where('state', '=', 'enrolled')
    .executeTakeFirst();
  const user =
    device &&
    (await store.db
      .selectFrom('users')
      .selectAll()
      .where('id', '=', device.userId)
      .executeTakeFirst());
  if (!user) return;
  const facts = await missingFacts(services, user, device);
  const unhealthy = facts.length > 0 ? 1 : 0;
  if (device.unhealthy === unhealthy) return;
  await store.write(async (tx) => {
    const changed = await tx
      .updateTable('devices')
      .set({ unhealthy })
      .where('id', '=', id)
      .where('unhealthy', '!=', unhealthy)
      .returning('id')
      .executeTakeFirst();
    if (!changed) return; // another control plane was faster
    const [status, reason] = unhealthy
      ? ['not-compliant', 'posture_unhealthy']
      : ['compliant', 'posture_healthy'];
    await audit.append(
      {
        actor: 'system',
        action: 'device.compliance',
        subject: id,
        outcome: 'ok',
        user: user.name,
        details: { status, reason, facts },
      },
      tx,
    );
  });
}

/** The facts by which this device's posture keeps its user from apps, sorted. */
async function missingFacts(services: Services, user: User, device: Device): Promise<string[]> {
  const subject = await likelySubject(services, services.store.db, user, device);
  const missing = new Set<string>();
  let sinceMs = performance.now();
  for (const app of await readApps(services.store.db)) {
    if (performance.now() - sinceMs > sliceMs) {
      await turn();
      sinceMs = performance.now();
    }
    const request = toPolicyRequest(services.policy, subject, app);
    const { remedies, conditions } = explainDecision(services.policy, request);
    if (!remedies.includes('posture')) continue;
    for (const { what } of conditions) {
      if (what.startsWith('posture.')) missing.add(what.slice('posture.'.length));
    }
  }
  return [...missing].sort();
}
