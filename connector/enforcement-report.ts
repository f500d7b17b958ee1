import {
  signingKey,
  type ConnectorId,
  type FromConnector,
  type RevocationEntry,
  type TunnelId,
} from '../protocol/index.ts';
import { CutReceipts, type ControlClock } from '../protocol/host/index.ts';
import type { IdentityKeeper } from './identity-keeper.ts';
import type { CutTunnel, OpenTunnel } from './tunnel-table.ts';

/** How often bytes of live tunnels are told. */
const countEveryMs = 2_000;

/** Tunnels in one message. */
const countsAtOnce = 512;

export interface EnforcementReportOptions<T extends OpenTunnel> {
  readonly keeper: IdentityKeeper;
  readonly clock: ControlClock;
  readonly tunnels: () => readonly T[];
  /** The channels that are open now. */
  readonly links: () => readonly { send(message: FromConnector): void }[];
}

/** What this connector tells of its enforcing: a signed receipt for each tunnel that it cut, and bytes of those that live. */
export class EnforcementReport<T extends OpenTunnel> {
  readonly #options: EnforcementReportOptions<T>;
  readonly #receipts: CutReceipts;
  readonly #told = new Map<TunnelId, number>();
  readonly #timer: NodeJS.Timeout;

  constructor(options: EnforcementReportOptions<T>) {
    this.#options = options;
    const { keeper, clock, links } = options;
    this.#receipts = new CutReceipts({
      by: () => ({
        id: keeper.identity.id as ConnectorId,
        key: signingKey(keeper.identity.signingKey),
      }),
      clock,
      send: (statement) => {
        const [link] = links(); // one record each
        link?.send({ type: 'receipt', statement });
        return link !== undefined;
      },
    });
    this.#timer = setInterval(() => {
      this.#tellBytes();
    }, countEveryMs).unref();
  }

  /** Notes what an entry of the log has cut just now; null for leases that ran out. */
  cut(
    tunnels: readonly CutTunnel<T>[],
    entry: Pick<RevocationEntry, 'reason' | 'position'> | null,
    incarnation: number,
  ): void {
    const { reason = 'lease_expired', position = null } = entry ?? {};
    for (const { tunnel, action } of tunnels) {
      const { tunnel: id, generation } = tunnel.grant;
      const by = { action, reason, position, incarnation: Math.max(0, incarnation) };
      this.#receipts.add({ tunnel: id, generation, ...by, ...tunnel.traffic });
    }
  }

  /** Tells what could not be told before. */
  flush(): void {
    this.#receipts.flush();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #tellBytes(): void {
    const changed: [TunnelId, number, number][] = [];
    const live = new Set<TunnelId>();
    for (const { grant, traffic } of this.#options.tunnels()) {
      live.add(grant.tunnel);
      const { bytesUp, bytesDown } = traffic;
      if (this.#told.get(grant.tunnel) === bytesUp + bytesDown) continue;
      if (changed.length < countsAtOnce) changed.push([grant.tunnel, bytesUp, bytesDown]);
    }
    for (const id of this.#told.keys()) if (!live.has(id)) this.#told.delete(id);
    if (changed.length === 0) return;
    const links = this.#options.links();
    for (const link of links) link.send({ type: 'byte_counts', tunnels: changed });
    if (links.length === 0) return;
    for (const [id, up, down] of changed) this.#told.set(id, up + down);
  }
}
