import {
  isEnding,
  ZtnaError,
  type LeaseBatch,
  type RevocationEntry,
  type TunnelId,
  type VerifiedGrant,
} from '../../protocol/index.ts';
import { limits } from './limits.ts';
import type { SpliceEnd } from './splice.ts';
import { Tunnel, type TunnelOptions } from './tunnel.ts';

export interface TunnelsOptions {
  readonly onEnd: (tunnel: TunnelId, end: SpliceEnd) => void;
}

/** Every tunnel that this relay has admitted and not ended. */
export class Tunnels {
  readonly #options: TunnelsOptions;
  readonly #tunnels = new Map<TunnelId, Tunnel>();
  readonly #perDevice = new Map<string, number>();

  constructor(options: TunnelsOptions) {
    this.#options = options;
  }

  /**
   * Registers a tunnel, so that renewals and revocations reach it from now on. A higher path generation of the
   * same tunnel replaces the lower. Throws ERR_LIMIT_TUNNELS, or ERR_GRANT_MISMATCH for an old generation.
   */
  open(options: Omit<TunnelOptions, 'onEnd'>): Tunnel {
    const { grant } = options;
    const known = this.#tunnels.get(grant.tunnel);
    if (known && known.grant.generation >= grant.generation) {
      throw new ZtnaError('ERR_GRANT_MISMATCH', { reason: 'generation_old' });
    }
    known?.end(new ZtnaError('ERR_TUNNEL_PATH_LOST', { reason: 'path_replaced' }));
    const ofDevice = this.#perDevice.get(grant.device) ?? 0;
    if (ofDevice >= limits.tunnelsPerDevice || this.#tunnels.size >= limits.tunnels) {
      throw new ZtnaError('ERR_LIMIT_TUNNELS');
    }
    const tunnel = new Tunnel({
      ...options,
      onEnd: (end) => {
        this.#forget(grant);
        this.#options.onEnd(grant.tunnel, end);
      },
    });
    this.#tunnels.set(grant.tunnel, tunnel);
    this.#perDevice.set(grant.device, ofDevice + 1);
    return tunnel;
  }

  #forget(grant: VerifiedGrant): void {
    this.#tunnels.delete(grant.tunnel);
    const left = (this.#perDevice.get(grant.device) ?? 1) - 1;
    if (left > 0) this.#perDevice.set(grant.device, left);
    else this.#perDevice.delete(grant.device);
  }

  get size(): number {
    return this.#tunnels.size;
  }

  ids(): TunnelId[] {
    return [...this.#tunnels.keys()];
  }

  /** Applies renewals; entries for tunnels of another connector, or not here, say nothing. */
  renew(batch: LeaseBatch): void {
    for (const [id, sequence, untilMs] of batch.entries) {
      const tunnel = this.#tunnels.get(id);
      if (tunnel?.grant.connector === batch.connector) tunnel.renew(sequence, untilMs);
    }
  }

  /** Closes what an entry of the revocation log, of that incarnation, ends. Suspension closes as well. */
  revoke(entry: RevocationEntry, incarnation: number): void {
    for (const tunnel of [...this.#tunnels.values()]) {
      if (isEnding(entry, incarnation, tunnel.grant)) {
        tunnel.end(new ZtnaError('ERR_TUNNEL_REVOKED', { reason: entry.reason }));
      }
    }
  }

  tick(monotonicMs: number, controlMs: number | undefined): void {
    for (const tunnel of this.#tunnels.values()) tunnel.tick(monotonicMs, controlMs);
  }

  stop(error: ZtnaError): void {
    for (const tunnel of [...this.#tunnels.values()]) tunnel.end(error);
  }
}
