import type { AppId, DeviceId, SessionId } from '../../../protocol/index.ts';
import { readApp, readStoredSubject, type AppFacts, type StoredSubject } from '../grant/facts.ts';
import { sessionEndMs } from '../identity/index.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import { readFactStamps, stampOf, type FactStamps, type Reader, type Tx } from '../store/index.ts';

/** What nobody asked for during one to two of these is forgotten. Longer than any interval. */
const turnEveryMs = 60_000;

/** However its stamps are, what was read longer ago is read again: who loses the triggers loses no more than this. */
const beliefMs = 300_000;

/** What was read, and under which stamps. */
interface Known<T> {
  readonly stamp: string;
  readonly facts: T;
  readonly atMs: number;
}

/**
 * What the store said of subjects and apps when it was asked last. It is believed for a while, as long as the stamps are the
 * same that were read before it; what was not found is looked for each time. Who gets the same object has the same facts.
 */
export class KnownFacts {
  readonly #subjects = new Recent<StoredSubject>();
  readonly #apps = new Recent<AppFacts>();
  #turnedAtMs = 0;

  /** Reads the stamps of all that these tunnels rest on. What is believed by them is as fresh as they are. */
  async stamps(db: Reader, tunnels: readonly LiveTunnel[], nowMs: number): Promise<FactStamps> {
    if (nowMs - this.#turnedAtMs >= turnEveryMs) {
      this.#turnedAtMs = nowMs;
      this.#subjects.turn();
      this.#apps.turn();
    }
    const ids = tunnels.flatMap(({ user, device, session, app }) => [user, device, session, app]);
    return readFactStamps(db, ids);
  }

  /** As `readStoredSubject`. `untilMs` is how far ahead it has to hold that the session lasts. */
  async subject(
    services: Pick<Services, 'postures' | 'risk'>,
    db: Reader | Tx,
    tunnel: LiveTunnel,
    at: { readonly stamps: FactStamps; readonly nowMs: number; readonly untilMs: number },
  ): Promise<StoredSubject | undefined> {
    const { user, device, session } = tunnel;
    const key = `${session} ${device}`;
    const stamp = stampOf(at.stamps, user, device, session);
    const known = this.#subjects.get(key);
    // The session may have been used since, which is not stamped: near its end, that counts.
    const isNearEnd = known && sessionEndMs(known.facts.session) <= at.untilMs;
    if (isBelieved(known, stamp, at.nowMs) && !isNearEnd) return known.facts;
    const facts = await readStoredSubject(services, db, { device, session }, at.nowMs);
    if (facts?.user.id !== user) {
      this.#subjects.delete(key);
      return facts;
    }
    return this.#subjects.renew(key, known, { stamp, facts, atMs: at.nowMs });
  }

  /** As `readApp`. */
  async app(
    db: Reader | Tx,
    id: AppId,
    { stamps, nowMs }: { readonly stamps: FactStamps; readonly nowMs: number },
  ): Promise<AppFacts | undefined> {
    const stamp = stampOf(stamps, id);
    const known = this.#apps.get(id);
    if (isBelieved(known, stamp, nowMs)) return known.facts;
    const facts = await readApp(db, { id });
    if (!facts) {
      this.#apps.delete(id);
      return undefined;
    }
    return this.#apps.renew(id, known, { stamp, facts, atMs: nowMs });
  }

  /** What was noted of a session is not stamped. */
  forgetSession({ id, deviceId }: { readonly id: SessionId; readonly deviceId: DeviceId }): void {
    this.#subjects.delete(`${id} ${deviceId}`);
  }
}

function isBelieved<T>(
  known: Known<T> | undefined,
  stamp: string,
  nowMs: number,
): known is Known<T> {
  return known?.stamp === stamp && nowMs - known.atMs < beliefMs;
}

/** Entries that were used since the turn before the last. */
class Recent<T> {
  #young = new Map<string, Known<T>>();
  #old = new Map<string, Known<T>>();

  get(key: string): Known<T> | undefined {
    const young = this.#young.get(key);
    if (young !== undefined) return young;
    const old = this.#old.get(key);
    if (old !== undefined) this.#set(key, old);
    return old;
  }

  /** Keeps what was read, and answers its facts: those of before where they are the same. */
  renew(key: string, known: Known<T> | undefined, read: Known<T>): T {
    const isSame = known && JSON.stringify(known.facts) === JSON.stringify(read.facts);
    const facts = isSame ? known.facts : read.facts;
    this.#set(key, { ...read, facts });
    return facts;
  }

  #set(key: string, value: Known<T>): void {
    this.#old.delete(key);
    this.#young.set(key, value);
  }

  delete(key: string): void {
    this.#young.delete(key);
    this.#old.delete(key);
  }

  turn(): void {
    this.#old = this.#young;
    this.#young = new Map();
  }
}
