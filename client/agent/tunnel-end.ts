import { errorRow, ZtnaError } from '../../protocol/index.ts';

/** The end of a tunnel with a reason, which its message tells too. */
export type TunnelEnd = ZtnaError & { readonly reason: string };

/** Gives the end of a tunnel a reason where nobody gave one, and words that name it. */
export function explainEnd(error: ZtnaError): TunnelEnd {
  const { code, hint, ref, hop } = error;
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
