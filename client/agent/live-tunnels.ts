import { errorRow, type TunnelId, type ZtnaError } from '../../protocol/index.ts';
import type { Tunnel } from './tunnel.ts';

/** How often every tunnel's lease is looked at. */
const tickEveryMs = 250;

export interface LiveTunnelsOptions {
  /** A tunnel, or another path of one, has come: what was revoked while it was being opened has to be enforced. */
  readonly onPath: () => void;
  /** What policy holds tunnels back for may have changed. */
  readonly onHeldBack: () => void;
  /** A tunnel ended here that its connector would keep for its hold time, unless it hears of the end. */
  readonly onKeptElsewhere: (tunnel: TunnelId, reason: string) => void;
}

/** An agent's tunnels from their opening to their end; enforces their leases several times a second meanwhile. */
export class LiveTunnels {
  readonly #options: LiveTunnelsOptions;
  readonly #byId = new Map<TunnelId, Tunnel>();
  #ticker: NodeJS.Timeout | undefined;

  constructor(options: LiveTunnelsOptions) {
    this.#options = options;
  }

  get byId(): ReadonlyMap<TunnelId, Tunnel> {
    return this.#byId;
  }

  /** What policy holds tunnels back for at present. */
  get heldBackFor(): ReadonlySet<string> {
    const held = [...this.#byId.values()].flatMap(({ suspension }) => suspension ?? []);
    return new Set(held.map(({ reason }) => reason));
  }

  /** Takes a tunnel in until it ends. */
  add(tunnel: Tunnel): void {
    const { onPath, onHeldBack } = this.#options;
    const { tunnel: id } = tunnel.grant;
    this.#byId.set(id, tunnel);
    this.#ticker ??= setInterval(() => {
      for (const each of this.#byId.values()) each.tick();
    }, tickEveryMs);
    tunnel.onPath = onPath;
    tunnel.onSuspension = onHeldBack;
    void tunnel.closed.then((error) => {
      this.#ended(tunnel, error);
    });
    onPath();
  }

  /** Ends all of them: whoever may not hold a channel may not hold a tunnel. */
  refuse({ code, reason }: ZtnaError): void {
    for (const tunnel of this.#byId.values()) tunnel.end(code, reason ?? 'channel_refused');
  }

  /** Looks at leases no more. To be called once the tunnels were closed. */
  stop(): void {
    clearInterval(this.#ticker);
  }

  #ended({ grant }: Tunnel, { code, reason }: ZtnaError): void {
    this.#byId.delete(grant.tunnel);
    this.#options.onHeldBack();
    const isKept = errorRow(code).family !== 'denied' && code !== 'ERR_TUNNEL_CLOSED';
    if (isKept && grant.version >= 2) {
      this.#options.onKeptElsewhere(grant.tunnel, reason ?? 'not_wanted');
    }
    if (this.#byId.size > 0) return;
    clearInterval(this.#ticker);
    this.#ticker = undefined;
  }
}
