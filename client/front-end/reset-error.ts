import { ZtnaError, type ErrorCode, type Hop, type ResetCode } from '../../protocol/index.ts';

/** What a reset stream means to whoever held its connection, and what may help. */
const resetErrors: Readonly<Record<ResetCode, readonly [code: ErrorCode, hop: Hop, hint: string]>> =
  {
    refused: ['ERR_STREAM_REFUSED', 'app', 'the app is down: tell whoever runs it'],
    unreachable: ['ERR_STREAM_UNREACHABLE', 'app', 'the app is down: tell whoever runs it'],
    reset: ['ERR_STREAM_RESET', 'app', 'the app cut the connection: try again'],
    limit: ['ERR_LIMIT_STREAMS', 'connector', 'try again in a moment'],
    overrun: ['ERR_STREAM_RESET', 'connector', 'try again'],
    internal: ['ERR_STREAM_RESET', 'connector', 'try again; if it stays, tell your administrator'],
    closed: ['ERR_TUNNEL_CLOSED', 'network', 'try again'],
  };

/** A reset of a stream, as the error to tell. */
export function explainReset(reset: ResetCode): ZtnaError {
  const [code, hop, hint] = resetErrors[reset];
  return new ZtnaError(code, { hop, hint, reason: reset });
}
