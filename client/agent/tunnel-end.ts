import {
  errorRow,
  isDeviceReason,
  ZtnaError,
  type ErrorCode,
  type Hop,
} from '../../protocol/index.ts';
import type { Suspension } from './tunnel-watcher.ts';

/** The end of a tunnel with a reason, which its message tells too. */
export type TunnelEnd = ZtnaError & { readonly reason: string };

/** Where the commonest ends come from and what may be done about them. */
const advice: Partial<Readonly<Record<ErrorCode, readonly [hop: Hop, hint: string]>>> = {
  ERR_TUNNEL_REVOKED: ['relay', 'see: ztna status; sign in again, or ask your administrator'],
  ERR_IDENTITY_REVOKED: ['relay', 'ask your administrator for a new code'],
  ERR_TUNNEL_LEASE_EXPIRED: ['relay', 'the relay did not verify it in time; run the command again'],
  ERR_TUNNEL_PATH_LOST: ['network', 'check the network connection, then run the command again'],
  ERR_TUNNEL_RESUME_REFUSED: ['connector', 'its connections were reset; try again'],
  ERR_RELAY_DRAINING: ['relay', 'run the command again in a moment'],
};

/** Gives the end of a tunnel a reason where nobody gave one, and words that name it. */
export function explainEnd(error: ZtnaError): TunnelEnd {
  const { code, ref } = error;
  const hop = error.hop ?? advice[code]?.[0];
  const hint = error.hint ?? advice[code]?.[1];
  const reason = error.reason ?? code.replace(/^ERR_(?:TUNNEL_|GRANT_)?/, '').toLowerCase();
  const words = reason.replaceAll('_', ' ');
  return new ZtnaError(code, {
    message: error.reason === undefined ? error.message : `${errorRow(code).publicText}: ${words}`,
    ...(hint === undefined ? {} : { hint }),
    ...(ref === undefined ? {} : { ref }),
    ...(hop === undefined ? {} : { hop }),
    reason,
    cause: error,
  }) as TunnelEnd;
}

/** A refusal to open again, told as what it is to someone who was connected: access that has ended. */
export function asLoss(error: ZtnaError): ZtnaError {
  if (errorRow(error.code).exitCode !== errorRow('ERR_POLICY_DENIED').exitCode) return error;
  return new ZtnaError('ERR_TUNNEL_REVOKED', {
    message: 'access ended while connected',
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    ...(error.ref === undefined ? {} : { ref: error.ref }),
    reason: 'denied',
    cause: error,
  });
}

/** The end of a suspended tunnel that nobody mended in time; any other end is as it was told. */
export function asNotMended(end: ZtnaError, { reason, fix }: Suspension): ZtnaError {
  if (end.code !== 'ERR_TUNNEL_PATH_LOST') return end;
  const code = isDeviceReason(reason) ? 'ERR_POSTURE_UNHEALTHY' : 'ERR_TUNNEL_REVOKED';
  return new ZtnaError(code, {
    message: `access was suspended (${reason.replaceAll('_', ' ')}) and not mended in time`,
    reason: 'suspension_over',
    ...(fix === '' ? {} : { hint: fix }),
    cause: end,
  });
}

/** The error's reason, or else its code as one: ERR_TUNNEL_PATH_LOST → path_lost. */
export function reasonOf({ code, reason }: ZtnaError): string {
  return reason ?? code.replace(/^ERR_(?:TUNNEL_)?/, '').toLowerCase();
}

/** The same error with the decision that had allowed the tunnel, for support to look up. */
export function withRef(error: ZtnaError, ref: string): ZtnaError {
  const { code, message, hint, hop, reason } = error;
  return new ZtnaError(code, {
    message,
    ref: error.ref ?? ref,
    ...(hint === undefined ? {} : { hint }),
    ...(hop === undefined ? {} : { hop }),
    ...(reason === undefined ? {} : { reason }),
    cause: error,
  });
}
