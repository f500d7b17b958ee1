import {
  isEnding,
  leaseBatchSchema,
  suspendableVersion,
  verifyStatement,
  ZtnaError,
  type Bundle,
  type ConnectorId,
  type ErrorCode,
  type RevocationEntry,
  type TunnelId,
  type VerifiedGrant,
} from '../protocol/index.ts';
import type { KnownTunnel, TunnelCounts } from './grant-gate.ts';
import type { TunnelLease } from './tunnel-lease.ts';

export interface Traffic {
  readonly bytesUp: number;
  readonly bytesDown: number;
  readonly lastByteAt: number | null;
}

/** A tunnel that was just cut, and how. */
export interface CutTunnel<T> {
  readonly tunnel: T;
  readonly action: 'revoke' | 'suspend' | 'expire';
}

/** What the table needs of a tunnel. */
export interface OpenTunnel extends KnownTunnel {
  readonly grant: VerifiedGrant<'connector'>;
  readonly appName: string;
  readonly lease: TunnelLease;
  readonly streamCount: number;
  /** True while it is kept without a path. */
  readonly isDetached: boolean;
  /** Ends it at once, at both ends and at the app. Ends that are asked for later change nothing. */
  end(code: ErrorCode, reason: string): void;
  /** Bytes so far at the app, and when a record passed last, as `performance.now()` tells it. */
  readonly traffic: Traffic;
  /** Its lease is over: lets nothing pass any more. */
  expire(): void;
  /** Policy holds it back: lets nothing pass any more, and keeps what it has. */
  suspend(reason: string): void;
}

/** Every tunnel that is kept here, open or detached, and all that can end many of them. */
export class TunnelTable<T extends OpenTunnel = OpenTunnel> implements TunnelCounts<T> {
  readonly #tunnels = new Map<TunnelId, T>();
  readonly #perDevice = new Map<string, Set<T>>();

  get total(): number {
    return this.#tunnels.size;
  }

  get detachedCount(): number {
    let count = 0;
    for (const tunnel of this.#tunnels.values()) if (tunnel.isDetached) count++;
    return count;
  }

  all(): T[] {
    return [...this.#tunnels.values()];
  }

  get streamCount(): number {
    let count = 0;
    for (const tunnel of this.#tunnels.values()) count += tunnel.streamCount;
    return count;
  }

  ids(): TunnelId[] {
    return [...this.#tunnels.keys()];
  }

  find(tunnel: TunnelId): T | undefined {
    return this.#tunnels.get(tunnel);
  }

  ofDevice(device: string): number {
    return this.#perDevice.get(device)?.size ?? 0;
  }

  /** Notes that a tunnel lost its path. Answers those of its device that have none, the one that is without longest first. */
  noteDetached(tunnel: T): T[] {
    const ofDevice = this.#perDevice.get(tunnel.grant.device);
    // The last to lose its path stands last.
    if (ofDevice?.delete(tunnel) === true) ofDevice.add(tunnel);
    return [...(ofDevice ?? [])].filter(({ isDetached }) => isDetached);
  }

  add(tunnel: T): void {
    const { tunnel: id, device } = tunnel.grant;
    if (this.#tunnels.has(id)) {
      throw new ZtnaError('ERR_INTERNAL', { message: 'a tunnel was opened twice' });
    }
    this.#tunnels.set(id, tunnel);
    const ofDevice = this.#perDevice.get(device) ?? new Set();
    this.#perDevice.set(device, ofDevice.add(tunnel));
  }

  remove(tunnel: T): void {
    const { tunnel: id, device } = tunnel.grant;
    if (this.#tunnels.get(id) !== tunnel) return;
    this.#tunnels.delete(id);
    const ofDevice = this.#perDevice.get(device);
    ofDevice?.delete(tunnel);
    if (ofDevice?.size === 0) this.#perDevice.delete(device);
  }

  /**
   * Takes a `lease` statement; answers how many renewals counted. Throws ERR_STATEMENT_REFUSED for a bad signature or
   * another connector's, and then none counts.
   */
  renew(statement: string, bundle: Bundle, connector: ConnectorId): number {
    const batch = verifyStatement('lease', leaseBatchSchema, statement, bundle.grantKeys);
    if (batch.connector !== connector) throw new ZtnaError('ERR_STATEMENT_REFUSED');
    let counted = 0;
    for (const [id, sequence, untilMs] of batch.entries) {
      if (this.#tunnels.get(id)?.lease.renew(sequence, untilMs)) counted++;
    }
    return counted;
  }

  /** Stops every tunnel whose lease is over, and answers which: what is called on the tick. */
  enforceLeases(): CutTunnel<T>[] {
    const due = this.all().filter((tunnel) => !tunnel.isDetached && !tunnel.lease.isLive());
    for (const tunnel of due) tunnel.expire();
    return due.map((tunnel) => ({ tunnel, action: 'expire' }));
  }

  /**
   * Ends every tunnel that a log entry of that incarnation ends, detached ones too, or suspends it where the entry says so
   * and both ends know how. Answers which.
   */
  endAbout(entry: RevocationEntry, incarnation: number): CutTunnel<T>[] {
    const cut: CutTunnel<T>[] = [];
    for (const tunnel of this.all()) {
      if (!isEnding(entry, incarnation, tunnel.grant)) continue;
      const isHeld = entry.action === 'suspend' && tunnel.grant.version >= suspendableVersion;
      if (isHeld) tunnel.suspend(entry.reason);
      else tunnel.end('ERR_TUNNEL_REVOKED', entry.reason);
      cut.push({ tunnel, action: isHeld ? 'suspend' : 'revoke' });
    }
    return cut;
  }

  /** Ends the tunnels to apps that left the map or are dialled elsewhere. */
  endApps(names: readonly string[]): void {
    this.#endWhere((tunnel) => names.includes(tunnel.appName), 'ERR_TUNNEL_CLOSED', 'app_removed');
  }

  endAll(code: ErrorCode, reason: string): void {
    this.#endWhere(() => true, code, reason);
  }

  #endWhere(matches: (tunnel: T) => boolean, code: ErrorCode, reason: string): void {
    for (const tunnel of [...this.#tunnels.values()]) {
      if (matches(tunnel)) tunnel.end(code, reason);
    }
  }
}
