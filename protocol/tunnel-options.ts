import type { ErrorCode } from './errors.ts';
import type { VerifiedGrant, VerifiedPermit } from './grant.ts';
import type { TunnelStream } from './stream.ts';
import type { TunnelLimits } from './tunnel-limits.ts';
import type { ByteBudget } from './window.ts';

/** What a tunnel tells its owner. Called from within the endpoint's own methods: schedule work, do not call back. */
export interface TunnelHandlers {
  /** There is something to pull; called again only after `pull` answered undefined. */
  onOutput(): void;
  /** The peer closed the tunnel; its streams were reset with `closed` before. */
  onClose(code: ErrorCode, reason: string): void;
}

export interface ClientTunnelHandlers extends TunnelHandlers {
  /** The connector accepted the grant. */
  onAccept(): void;
}

export interface ConnectorTunnelHandlers extends TunnelHandlers {
  /** The client opened a stream. Attach handlers to it; its first bytes come through `onData` like all others. */
  onStream(stream: TunnelStream): void;
}

interface CommonOptions {
  readonly limits?: Partial<TunnelLimits>;
  /** Room for window growth that all tunnels of the process share. */
  readonly budget?: ByteBudget;
  /** The same for what is kept to be sent again. */
  readonly replayBudget?: ByteBudget;
}

/** A tunnel is opened with the proof that its end verified: there is no other way to make one. */
export type TunnelEndpointOptions = CommonOptions &
  (
    | {
        readonly role: 'client';
        readonly permit: VerifiedPermit;
        readonly handlers: ClientTunnelHandlers;
      }
    | {
        readonly role: 'connector';
        readonly grant: VerifiedGrant<'connector'>;
        readonly handlers: ConnectorTunnelHandlers;
      }
  );
