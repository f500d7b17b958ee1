import type { ControlPeer } from '../listener/secure-listener.ts';

/**
 * Live sockets end with the certificate that opened them: calls `close` at its end, or after 24 days if that is sooner.
 * Whoever closes before clears the timer.
 */
export function closeAtCertificateEnd(
  dialler: Pick<ControlPeer, 'certificateUntilMs'>,
  close: () => void,
): NodeJS.Timeout {
  const leftMs = dialler.certificateUntilMs - Date.now();
  return setTimeout(close, Math.min(Math.max(leftMs, 0), 2_147_483_647));
}
