import {
  logBatchSchema,
  signStatement,
  type RevocationEntry,
  type SigningKey,
} from '../../../protocol/index.ts';
import { maxLogEntries } from '../limits.ts';
import type { Peers } from './peers.ts';
import type { TunnelIndex } from './tunnel-index.ts';

export interface LogFeedOptions {
  readonly peers: Peers;
  readonly tunnels: TunnelIndex;
  readonly grantKey: SigningKey;
  readonly incarnation: number;
  /** The log's last position when this process began. */
  readonly position: number;
}

/**
 * Tells everyone of revocations as soon as they are durable: data planes everything, connectors and devices only
 * what names their own tunnels and grants. Each batch says up to where its reader now knows all of its own.
 */
export class LogFeed {
  readonly #options: LogFeedOptions;
  readonly #pending: RevocationEntry[] = [];
  /** Who hears of an entry about a tunnel beyond those that the index knows; until it was sent. */
  readonly #concerned = new Map<string, string>();
  #isScheduled = false;
  #head: number;

  constructor(options: LogFeedOptions) {
    this.#options = options;
    this.#head = options.position;
  }

  /** The last durable position. */
  get head(): number {
    return this.#head;
  }

  get incarnation(): number {
    return this.#options.incarnation;
  }

  /** The next entry about a tunnel that is over here goes to this peer too, which may still have it. */
  concern(tunnel: string, peer: string): void {
    this.#concerned.set(tunnel, peer);
  }

  /** Takes a durable entry; those of one transaction go out together. */
  push(entry: RevocationEntry): void {
    this.#pending.push(entry);
    this.#head = entry.position;
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.flush();
    });
  }

  /** Sends what is pending now. Called before a tunnel leaves the index, which decides who hears of it. */
  flush(): void {
    this.#isScheduled = false;
    const entries = this.#pending.splice(0);
    if (entries.length === 0) return;
    const own = new Map<string, RevocationEntry[]>();
    for (const entry of entries) {
      const { tunnels } = this.#options;
      const audience = new Set([...tunnels.connectorsOf(entry), ...tunnels.devicesOf(entry)]);
      const concerned = this.#concerned.get(entry.subject.id);
      if (concerned !== undefined) audience.add(concerned);
      this.#concerned.delete(entry.subject.id);
      for (const id of audience) {
        const list = own.get(id);
        if (list) list.push(entry);
        else own.set(id, [entry]);
      }
    }
    const { peers } = this.#options;
    for (const peer of peers.relays.values()) this.#tell(peer, entries);
    for (const peer of peers.connectors.values()) this.#tell(peer, own.get(peer.id) ?? []);
    for (const peer of peers.allDevices()) {
      const list = own.get(peer.id);
      if (list) this.#tell(peer, list);
    }
  }

  /** Tells a peer that has just said hello what it may have missed. */
  catchUp(peer: Parameters<LogFeed['tellHead']>[0], entries: readonly RevocationEntry[]): void {
    this.flush();
    this.#tell(peer, entries);
  }

  /** A signed "complete for you up to the head", without entries. */
  tellHead(peer: AnyPeer): void {
    this.#tell(peer, []);
  }

  /** The heartbeat: everyone learns that silence meant nothing to tell. */
  beat(): void {
    this.flush();
    for (const peer of this.#options.peers.all()) this.tellHead(peer);
  }

  #tell(peer: AnyPeer, entries: readonly RevocationEntry[]): void {
    const { grantKey, incarnation } = this.#options;
    for (let at = 0; at === 0 || at < entries.length; at += maxLogEntries) {
      const part = entries.slice(at, at + maxLogEntries);
      const isLast = at + maxLogEntries >= entries.length;
      const completeTo = isLast ? this.#head : (part.at(-1)?.position ?? this.#head);
      const batch = { audience: peer.id, incarnation, entries: part, completeTo };
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
