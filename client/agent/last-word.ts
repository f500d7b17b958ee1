import { errorRow, ZtnaError } from '../../protocol/index.ts';

/**
 * True for the one thing said on a control channel, or while it is dialled, that no other control plane can mend: that
 * this machine was revoked. All else may be the doing of one control plane or of whoever answers in its place.
 */
export function isLastWord({ code }: ZtnaError): boolean {
  return code === 'ERR_IDENTITY_REVOKED';
}

/**
 * Why there is no channel, to be told to those who wait for one: however it failed, it is no answer to what they ask,
 * and no reason to give up what hangs on it.
 */
export function asPassing(error: ZtnaError): ZtnaError {
  const { code, message, hint, hop, reason } = error;
  if (isLastWord(error) || errorRow(code).retry === 'backoff') return error;
  return new ZtnaError('ERR_RELAY_UNREACHABLE', {
    message,
    ...(hint === undefined ? {} : { hint }),
    ...(hop === undefined ? {} : { hop }),
    ...(reason === undefined ? {} : { reason }),
    cause: error,
  });
}
