import {
  errorRow,
  isEnding,
  suspendableVersion,
  ZtnaError,
  type LeaseBatch,
  type RevocationEntry,
  type TunnelId,
  type VerifiedGrant,
} from '../../protocol/index.ts';
import type { Cut } from '../../protocol/host/index.ts';
import { limits } from './limits.ts';
import type { SpliceEnd } from './splice.ts';
import { movableVersion, Tunnel, type TunnelOptions } from './tunnel.ts';

export interface TunnelsOptions {
  readonly onJoin: (grant: VerifiedGrant) => void;
  readonly onEnd: (tunnel: TunnelId, end: SpliceEnd) => void;
  /** An entry of the revocation log has cut this path. */
  readonly onCut: (cut: Cut) => void;
}

/** Paths of one tunnel at one time: the one that carries it, and the one that is to. */
const maxPaths = 2;

/** Every path of a tunnel that this relay has admitted and not ended. */
export class Tunnels {
  readonly #options: TunnelsOptions;
  /** By path generation, ascending. */
  readonly #tunnels = new Map<TunnelId, readonly Tunnel[]>();
  #size = 0;
  /** Who waits for the last one to end. */
  readonly #waiting: (() => void)[] = [];
  readonly #perDevice = new Map<string, number>();
  /** Paths whose ends heard first that access was over, by when they left: the entry that said so is on its way here. */
  readonly #left = new Map<Tunnel, number>();

  constructor(options: TunnelsOptions) {
    this.#options = options;
  }

  /**
   * Registers a path, so that renewals and revocations reach it from now on. The path of a lower generation stays
   * until its ends close it; only a third takes the place of one of the two. Throws ERR_LIMIT_TUNNELS, or
   * ERR_GRANT_MISMATCH for an old generation.
   */
  open(options: Omit<TunnelOptions, 'onJoin' | 'onEnd'>): Tunnel {
    const { grant } = options;
    const known = this.#tunnels.get(grant.tunnel) ?? [];
    if (known.some((path) => path.grant.generation >= grant.generation)) {
      throw new ZtnaError('ERR_GRANT_MISMATCH', { reason: 'generation_old' });
    }
    const allowed = grant.version >= movableVersion ? maxPaths : 1;
    if (known.length >= allowed) {
      const leastUseful = known.find((path) => !path.isJoined) ?? known[0];
      leastUseful?.end(new ZtnaError('ERR_TUNNEL_PATH_LOST', { reason: 'path_replaced' }));
    }
    const ofDevice = this.#perDevice.get(grant.device) ?? 0;
    if (ofDevice >= limits.tunnelsPerDevice || this.#size >= limits.tunnels) {
      throw new ZtnaError('ERR_LIMIT_TUNNELS');
    }
    const tunnel = new Tunnel({
      ...options,
      onJoin: () => {
        this.#options.onJoin(grant);
      },
      onEnd: (end) => {
        this.#forget(tunnel);
        if (errorRow(end.code).family === 'denied') this.#noteLeft(tunnel);
        this.#options.onEnd(grant.tunnel, end);
        if (this.#size === 0) for (const resolve of this.#waiting.splice(0)) resolve();
      },
    });
    this.#tunnels.set(grant.tunnel, [...(this.#tunnels.get(grant.tunnel) ?? []), tunnel]);
    this.#size += 1;
    this.#perDevice.set(grant.device, ofDevice + 1);
    return tunnel;
  }

  #forget(path: Tunnel): void {
    const { grant } = path;
    const others = (this.#tunnels.get(grant.tunnel) ?? []).filter((other) => other !== path);
    if (others.length > 0) this.#tunnels.set(grant.tunnel, others);
    else this.#tunnels.delete(grant.tunnel);
    this.#size -= 1;
    const left = (this.#perDevice.get(grant.device) ?? 1) - 1;
    if (left > 0) this.#perDevice.set(grant.device, left);
    else this.#perDevice.delete(grant.device);
  }

  /** Paths, whosever. */
  get size(): number {
    return this.#size;
  }

  all(): Tunnel[] {
    return [...this.#tunnels.values()].flat();
  }

  ids(): TunnelId[] {
    return [...this.#tunnels.keys()];
  }

  /** Applies renewals; entries for tunnels of another connector, or not here, say nothing. */
  renew(batch: LeaseBatch): void {
    for (const [id, sequence, untilMs] of batch.entries) {
      for (const path of this.#tunnels.get(id) ?? []) {
        if (path.grant.connector === batch.connector) path.renew(sequence, untilMs);
      }
    }
  }

  #noteLeft(path: Tunnel): void {
    this.#left.set(path, performance.now());
    const [oldest] = this.#left.keys();
    if (oldest && this.#left.size > limits.leftPaths) this.#left.delete(oldest);
  }

  /**
   * Closes the paths that an entry of the revocation log, of that incarnation, ends or holds back. Those whose ends were first
   * to hear of it are cut as well: nothing has passed since.
   */
  revoke(entry: RevocationEntry, incarnation: number): void {
    for (const tunnel of [...this.all(), ...this.#left.keys()]) {
      if (!isEnding(entry, incarnation, tunnel.grant)) continue;
      const isHeld = entry.action === 'suspend' && tunnel.grant.version >= suspendableVersion;
      const code = isHeld ? 'ERR_TUNNEL_SUSPENDED' : 'ERR_TUNNEL_REVOKED';
      tunnel.end(new ZtnaError(code, { reason: entry.reason }));
      this.#left.delete(tunnel);
      const { tunnel: id, generation } = tunnel.grant;
      const { reason, position } = entry;
      const action = isHeld ? 'suspend' : 'revoke';
      const cut = { tunnel: id, generation, action, reason, incarnation, position } as const;
      this.#options.onCut({ ...cut, ...tunnel.traffic });
    }
  }

  tick(monotonicMs: number, controlMs: number | undefined): void {
    for (const tunnel of this.all()) tunnel.tick(monotonicMs, controlMs);
    for (const [path, leftAtMs] of this.#left) {
      if (monotonicMs - leftAtMs >= limits.leftPathMs) this.#left.delete(path);
    }
  }

  /** Resolves once there is none. */
  async empty(): Promise<void> {
    if (this.#size > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  stop(error: ZtnaError): void {
    for (const tunnel of this.all()) tunnel.end(error);
  }
}
