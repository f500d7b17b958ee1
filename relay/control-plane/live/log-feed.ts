import {
  logBatchSchema,
  signStatement,
  type RevocationEntry,
  type SigningKey,
} from '../../../protocol/index.ts';
import { maxLogEntries } from '../limits.ts';
import { readAudience } from './audience.ts';
import type { LogHead, RevocationLog } from '../revocation/index.ts';
import type { Store } from '../store/index.ts';
import type { Peers } from './peers.ts';

export interface LogFeedOptions {
  readonly store: Store;
  readonly revocations: Pick<RevocationLog, 'head' | 'since'>;
  readonly peers: Peers;
  readonly clock: { nowMs(): number };
  readonly grantKey: SigningKey;
  /** Where the log stood when this process began. */
  readonly head: LogHead;
  /** The store went back: it was restored under our feet. */
  readonly onRegression?: () => void;
}

/** Entries read and told at once. */
const pageEntries = 256;
/** When the log could not be read, it is tried again without a wake. */
const retryMs = 1_000;

/**
 * Tells everyone who has a channel here of revocations once they are durable, whichever control plane wrote them: data
 * planes everything, connectors and devices only what names tunnels and grants that they have or may still use. Reads
 * the log by position, so that a lost wake delays and never omits. Each batch says up to where its reader now knows
 * all of its own.
 */
export class LogFeed {
  readonly #options: LogFeedOptions;
  #incarnation: number;
  #head: number;
  #turn: Promise<void> | undefined;
  #isWanted = false;
  #retry: NodeJS.Timeout | undefined;

  constructor(options: LogFeedOptions) {
    this.#options = options;
    this.#incarnation = options.head.incarnation;
    this.#head = options.head.position;
  }

  /** The last position that everyone here was told up to. */
  get head(): number {
    return this.#head;
  }

  get incarnation(): number {
    return this.#incarnation;
  }

  /** There may be new entries. Resolves when all that are durable by now were told, or could not be read. */
  wake(): Promise<void> {
    this.#isWanted = true;
    this.#turn ??= this.#run().finally(() => {
      this.#turn = undefined;
    });
    return this.#turn;
  }

  async #run(): Promise<void> {
    while (this.#isWanted) {
      this.#isWanted = false;
      try {
        while (await this.#readPage());
      } catch {
        clearTimeout(this.#retry); // the store tells of its own absence
        this.#retry = setTimeout(() => void this.wake(), retryMs).unref();
        return;
      }
    }
  }

  /** Answers whether there may be more. */
  async #readPage(): Promise<boolean> {
    const { store, revocations, clock, onRegression } = this.#options;
    const { incarnation, position } = await revocations.head(store.db);
    if (incarnation === this.#incarnation && position === this.#head) return false;
    const isOlder = incarnation === this.#incarnation && position < this.#head;
    if (isOlder || incarnation < this.#incarnation) {
      onRegression?.();
      return false;
    }
    const from = incarnation === this.#incarnation ? this.#head : 0;
    const entries = await revocations.since(store.db, from, pageEntries);
    const audience = await readAudience(store.db, entries, clock.nowMs());
    // From here on in one turn: who registers meanwhile is told before or after, and nothing in between.
    this.#incarnation = incarnation;
    this.#head = entries.at(-1)?.position ?? position;
    this.#tellAll(entries, audience);
    return entries.length === pageEntries;
  }

  #tellAll(
    entries: readonly RevocationEntry[],
    audience: ReadonlyMap<string, readonly RevocationEntry[]>,
  ): void {
    const { peers } = this.#options;
    for (const peer of peers.relays.values()) this.#tell(peer, entries);
    for (const peer of peers.connectors.values()) this.#tell(peer, audience.get(peer.id) ?? []);
    for (const peer of peers.allDevices()) {
      const own = audience.get(peer.id);
      if (own) this.#tell(peer, own);
    }
  }

  /** Tells a peer that has just said hello what it may have missed, up to the head. */
  catchUp(peer: AnyPeer, entries: readonly RevocationEntry[]): void {
    this.#tell(peer, entries);
  }

  /** A signed "complete for you up to the head", without entries. */
  tellHead(peer: AnyPeer): void {
    this.#tell(peer, []);
  }

  /**
   * The heartbeat: whoever admits tunnels learns that silence meant nothing to tell. An agent admits none and acts on
   * entries alone, so it is told of those.
   */
  beat(): void {
    void this.wake();
    const { relays, connectors } = this.#options.peers;
    for (const peer of [...relays.values(), ...connectors.values()]) this.tellHead(peer);
  }

  #tell(peer: AnyPeer, entries: readonly RevocationEntry[]): void {
    const { grantKey } = this.#options;
    for (let at = 0; at === 0 || at < entries.length; at += maxLogEntries) {
      const part = entries.slice(at, at + maxLogEntries);
      const isLast = at + maxLogEntries >= entries.length;
      const completeTo = isLast ? this.#head : (part.at(-1)?.position ?? this.#head);
      const batch = {
        audience: peer.id,
        incarnation: this.#incarnation,
        entries: part,
        completeTo,
      };
      const statement = signStatement('log', logBatchSchema, batch, grantKey);
      peer.send({ type: 'log', statement });
      peer.toldTo = completeTo;
    }
  }
}

interface AnyPeer {
  readonly id: string;
  toldTo: number;
  send(message: { readonly type: 'log'; readonly statement: string }): void;
}
