import {
  isEnding,
  leaseBatchSchema,
  verifyStatement,
  ZtnaError,
  type Bundle,
  type ConnectorId,
  type ErrorCode,
  type RevocationEntry,
  type TunnelId,
  type VerifiedGrant,
} from '../protocol/index.ts';
import type { TunnelCounts } from './grant-gate.ts';
import type { TunnelLease } from './tunnel-lease.ts';

/** What the table needs of an open tunnel. */
export interface OpenTunnel {
  readonly grant: VerifiedGrant<'connector'>;
  readonly appName: string;
  readonly lease: TunnelLease;
  readonly streamCount: number;
  /** Ends it at once, at both ends and at the app. Ends that are asked for later change nothing. */
  end(code: ErrorCode, reason: string): void;
}

/** Every tunnel that is open here, and all that can end many of them. */
export class TunnelTable implements TunnelCounts {
  readonly #tunnels = new Map<TunnelId, OpenTunnel>();
  readonly #perDevice = new Map<string, number>();

  get total(): number {
    return this.#tunnels.size;
  }

  get streamCount(): number {
    let count = 0;
    for (const tunnel of this.#tunnels.values()) count += tunnel.streamCount;
    return count;
  }

  ids(): TunnelId[] {
    return [...this.#tunnels.keys()];
  }

  has(tunnel: TunnelId): boolean {
    return this.#tunnels.has(tunnel);
  }

  ofDevice(device: string): number {
    return this.#perDevice.get(device) ?? 0;
  }

  add(tunnel: OpenTunnel): void {
    const { tunnel: id, device } = tunnel.grant;
    if (this.#tunnels.has(id)) {
      throw new ZtnaError('ERR_INTERNAL', { message: 'a tunnel was opened twice' });
    }
    this.#tunnels.set(id, tunnel);
    this.#perDevice.set(device, this.ofDevice(device) + 1);
  }

  remove(tunnel: OpenTunnel): void {
    const { tunnel: id, device } = tunnel.grant;
    if (this.#tunnels.get(id) !== tunnel) return;
    this.#tunnels.delete(id);
    const left = this.ofDevice(device) - 1;
    if (left > 0) this.#perDevice.set(device, left);
    else this.#perDevice.delete(device);
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

  /** Ends every tunnel whose lease is over: what is called on the tick. */
  enforceLeases(): void {
    this.#endWhere((tunnel) => !tunnel.lease.isLive(), 'ERR_TUNNEL_LEASE_EXPIRED', 'lease_expired');
  }

  /** Ends every tunnel that a log entry of that incarnation ends. Suspended ones end too: their ends are not kept. */
  endAbout(entry: RevocationEntry, incarnation: number): void {
    this.#endWhere(
      (tunnel) => isEnding(entry, incarnation, tunnel.grant),
      'ERR_TUNNEL_REVOKED',
      entry.reason,
    );
  }

  /** Ends the tunnels to apps that left the map or are dialled elsewhere. */
  endApps(names: readonly string[]): void {
    this.#endWhere((tunnel) => names.includes(tunnel.appName), 'ERR_TUNNEL_CLOSED', 'app_removed');
  }

  endAll(code: ErrorCode, reason: string): void {
    this.#endWhere(() => true, code, reason);
  }

  #endWhere(matches: (tunnel: OpenTunnel) => boolean, code: ErrorCode, reason: string): void {
    for (const tunnel of [...this.#tunnels.values()]) {
      if (matches(tunnel)) tunnel.end(code, reason);
    }
  }
}
