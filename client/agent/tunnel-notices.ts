import {
  isAbout,
  leaseBatchSchema,
  suspendableVersion,
  verifyStatement,
  type Bundle,
  type ToDevice,
  type TunnelId,
} from '../../protocol/index.ts';
import type { RevocationFeed } from '../../protocol/host/index.ts';
import type { Tunnel } from './tunnel.ts';

export interface TunnelNoticesOptions {
  readonly tunnels: ReadonlyMap<TunnelId, Tunnel>;
  readonly feed: RevocationFeed;
  readonly bundle: () => Bundle;
}

/** What the control plane tells of tunnels, carried out on those that are here. */
export class TunnelNotices {
  readonly #options: TunnelNoticesOptions;

  constructor(options: TunnelNoticesOptions) {
    this.#options = options;
  }

  /** Answers whether the message was one about tunnels. Throws ERR_STATEMENT_REFUSED for one that is not signed. */
  take(message: ToDevice): boolean {
    const { tunnels, feed, bundle } = this.#options;
    if (message.type === 'leases') {
      this.#renew(message.statement);
    } else if (message.type === 'log') {
      feed.receive(message.statement, bundle());
      this.enforce();
    } else if (message.type === 'tunnel_ended') {
      tunnels.get(message.tunnel)?.end(message.code, message.reason);
    } else if (message.type === 'tunnel_suspended') {
      tunnels.get(message.tunnel)?.suspend(message.reason, message.fix);
    } else if (message.type === 'tunnel_ready') {
      tunnels.get(message.tunnel)?.goOn();
    } else if (message.type === 'tunnel_draining') {
      tunnels.get(message.tunnel)?.noteLeaving();
    } else {
      return false;
    }
    return true;
  }

  /** Ends and suspends what entries of the revocation log name; to be called for what came while a path was opened, too. */
  enforce(): void {
    const { tunnels, feed } = this.#options;
    for (const tunnel of tunnels.values()) {
      const { grant } = tunnel;
      const entry = feed.isRevokedAfter(grant, grant.incarnation, grant.position);
      if (!entry || !isAbout(entry.subject, grant)) continue;
      const isHeld = entry.action === 'suspend' && grant.version >= suspendableVersion;
      if (!isHeld) tunnel.end('ERR_TUNNEL_REVOKED', entry.reason);
      else if (!tunnel.isDetached) tunnel.suspend(entry.reason);
    }
  }

  #renew(statement: string): void {
    const { tunnels, bundle } = this.#options;
    const batch = verifyStatement('lease', leaseBatchSchema, statement, bundle().grantKeys);
    for (const [id, sequence, untilMs] of batch.entries) {
      const tunnel = tunnels.get(id);
      if (tunnel?.grant.connector === batch.connector) tunnel.renew(sequence, untilMs);
    }
  }
}
