/**
 * Every way this system says no, in one table. `docs/protocol.md` repeats it and a test compares the two.
 *
 * `family` says whose fault it is, `closeCode` is the WebSocket close code, `retry` what a peer may do
 * about it, `exitCode` what a command ends with, `publicText` the only words a peer is ever told.
 */
const table = {
  ERR_FRAME_MALFORMED: ['malformed', 4400, 'never', 1, 'a frame could not be read'],
  ERR_FRAME_UNEXPECTED: ['violation', 4400, 'never', 1, 'a frame came at the wrong moment'],
  ERR_FRAME_CREDIT_OVERRUN: ['violation', 4400, 'never', 1, 'more data than the credit allowed'],
  ERR_MESSAGE_MALFORMED: ['malformed', 4400, 'never', 1, 'a message could not be read'],
  ERR_MESSAGE_UNEXPECTED: ['violation', 4400, 'never', 1, 'a message came at the wrong moment'],
  ERR_MESSAGE_TOO_LARGE: ['limit', 4413, 'never', 1, 'a message was larger than allowed'],
  ERR_HANDSHAKE_FAILED: ['unauthenticated', 4401, 'never', 1, 'the handshake failed'],
  ERR_HANDSHAKE_TIMEOUT: ['timeout', 4408, 'backoff', 1, 'the handshake took too long'],
  ERR_HANDSHAKE_VERSION: ['violation', 4426, 'never', 1, 'no common protocol version'],
  ERR_RECORD_TAMPERED: [
    'unauthenticated',
    4400,
    'backoff',
    1,
    'a record failed its integrity check',
  ],
  ERR_RECORD_KEY_EXHAUSTED: ['limit', 4400, 'backoff', 1, 'this key has sealed all it may'],
  ERR_IDENTITY_UNAUTHENTICATED: ['unauthenticated', 4401, 'never', 1, 'not authenticated'],
  ERR_IDENTITY_ROLE: ['unauthenticated', 4401, 'never', 1, 'this certificate is not for that'],
  ERR_IDENTITY_KEY_REFUSED: [
    'unauthenticated',
    4401,
    'never',
    1,
    'that public key is not acceptable',
  ],
  ERR_IDENTITY_SIGN_IN_NEEDED: [
    'unauthenticated',
    4401,
    'after-reauthentication',
    4,
    'sign in first',
  ],
  ERR_IDENTITY_SIGN_IN_REFUSED: [
    'unauthenticated',
    4401,
    'never',
    4,
    'user name, password or code is wrong',
  ],
  ERR_IDENTITY_OTP_NEEDED: [
    'unauthenticated',
    4401,
    'after-reauthentication',
    4,
    'a one-time password is needed',
  ],
  ERR_IDENTITY_SIGN_IN_PENDING: [
    'unauthenticated',
    4401,
    'backoff',
    4,
    'the sign-in is not done yet',
  ],
  ERR_IDENTITY_DEVICE_PENDING: [
    'denied',
    4403,
    'never',
    6,
    'this device waits for an administrator to approve it',
  ],
  ERR_IDENTITY_PASSWORD_WEAK: [
    'violation',
    4400,
    'never',
    2,
    'choose a longer or less common password',
  ],
  ERR_IDENTITY_CODE_REFUSED: [
    'unauthenticated',
    4401,
    'never',
    2,
    'this enrolment code is not valid',
  ],
  ERR_IDENTITY_CODE_USED: ['violation', 4409, 'never', 2, 'this enrolment code was used already'],
  ERR_IDENTITY_NOT_ENROLLED: ['unauthenticated', 4401, 'never', 4, 'this machine is not enrolled'],
  ERR_IDENTITY_ALREADY_ENROLLED: ['misuse', 4400, 'never', 2, 'this machine is enrolled already'],
  ERR_IDENTITY_REVOKED: ['denied', 4410, 'never', 7, 'this identity was revoked'],
  ERR_STATEMENT_REFUSED: ['unauthenticated', 4401, 'never', 1, 'a signed statement was refused'],
  ERR_GRANT_REFUSED: ['unauthenticated', 4403, 'never', 5, 'the grant was refused'],
  ERR_GRANT_EXPIRED: ['expired', 4403, 'backoff', 5, 'the grant is too old'],
  ERR_GRANT_USED: ['violation', 4409, 'never', 5, 'the grant was used already'],
  ERR_GRANT_MISMATCH: ['denied', 4403, 'never', 5, 'the grant is not for this'],
  ERR_GRANT_REVOKED: ['denied', 4410, 'never', 7, 'the grant was revoked'],
  ERR_POLICY_DENIED: ['denied', 4403, 'never', 5, 'there is no such app, or you may not use it'],
  ERR_POLICY_INVALID: ['malformed', 4400, 'never', 2, 'the policy is not valid'],
  ERR_POSTURE_UNHEALTHY: [
    'denied',
    4403,
    'after-reauthentication',
    6,
    'this device does not meet the policy',
  ],
  ERR_TUNNEL_REVOKED: ['denied', 4410, 'never', 7, 'access was revoked'],
  ERR_TUNNEL_SUSPENDED: [
    'denied',
    4403,
    'after-reauthentication',
    6,
    'access is suspended until what is missing is mended',
  ],
  ERR_TUNNEL_LEASE_EXPIRED: [
    'expired',
    4411,
    'backoff',
    7,
    'verification stopped, so the tunnel ended',
  ],
  ERR_TUNNEL_CLOSED: ['violation', 4400, 'backoff', 1, 'the tunnel is closed'],
  ERR_TUNNEL_RESUME_REFUSED: [
    'violation',
    4409,
    'backoff',
    1,
    'the tunnel cannot be taken up again',
  ],
  ERR_TUNNEL_PATH_LOST: ['unavailable', 4500, 'backoff', 3, 'the path of the tunnel was lost'],
  ERR_STREAM_REFUSED: ['unavailable', 4500, 'backoff', 8, 'the app refused the connection'],
  ERR_STREAM_UNREACHABLE: ['unavailable', 4500, 'backoff', 8, 'the app could not be reached'],
  ERR_STREAM_RESET: ['unavailable', 4500, 'backoff', 1, 'the connection was reset'],
  ERR_LIMIT_STREAMS: ['limit', 4413, 'backoff', 1, 'too many connections in this tunnel'],
  ERR_LIMIT_TUNNELS: ['limit', 4413, 'backoff', 1, 'too many tunnels'],
  ERR_LIMIT_DEVICES: [
    'limit',
    4413,
    'never',
    1,
    'this user has enrolled as many devices as allowed',
  ],
  ERR_LIMIT_RATE: ['limit', 4429, 'backoff', 1, 'too many attempts; wait a little'],
  ERR_NETWORK_PROXY: ['unavailable', 4500, 'backoff', 3, 'the proxy refused the connection'],
  ERR_NETWORK_INTERCEPTED: [
    'unauthenticated',
    4401,
    'backoff',
    3,
    'something on the way answered with a certificate of its own',
  ],
  ERR_NETWORK_CAPTIVE_PORTAL: [
    'unavailable',
    4500,
    'backoff',
    3,
    'this network wants a sign-in before it lets anything through',
  ],
  ERR_RELAY_UNREACHABLE: ['unavailable', 4500, 'backoff', 3, 'the relay could not be reached'],
  ERR_RELAY_UNAVAILABLE: ['unavailable', 4500, 'backoff', 3, 'the relay cannot do this at present'],
  ERR_RELAY_DRAINING: ['unavailable', 4503, 'backoff', 3, 'the relay is shutting down'],
  ERR_CONNECTOR_OFFLINE: [
    'unavailable',
    4500,
    'backoff',
    8,
    'no connector serves this app at present',
  ],
  ERR_CONNECTOR_REPLACED: [
    'violation',
    4409,
    'never',
    2,
    'a newer process uses the identity of this connector',
  ],
  ERR_CLIENT_PORT_BUSY: ['misuse', 4400, 'never', 9, 'the local port is taken'],
  ERR_CONFIG_INVALID: ['misuse', 4400, 'never', 2, 'the configuration is not valid'],
  ERR_CONFIG_USAGE: ['misuse', 4400, 'never', 2, 'the command was not understood'],
  ERR_CONFIG_NOT_AVAILABLE: ['misuse', 4400, 'never', 2, 'not available yet'],
  ERR_CONFIG_LOCKED: ['misuse', 4400, 'never', 2, 'another process uses this directory'],
  ERR_CONFIG_EXISTS: ['misuse', 4400, 'never', 2, 'there is something there already'],
  ERR_CONFIG_NOT_FOUND: ['misuse', 4400, 'never', 2, 'there is nothing by that name'],
  ERR_CONFIG_PERMISSIONS: ['misuse', 4400, 'never', 2, 'file permissions are too wide'],
  ERR_INTERNAL: ['internal', 4500, 'backoff', 1, 'something went wrong inside'],
} as const satisfies Record<string, readonly [Family, number, Retry, number, string]>;

export type Family =
  | 'malformed' // bad bytes
  | 'violation' // good bytes at the wrong moment
  | 'unauthenticated'
  | 'denied'
  | 'expired'
  | 'limit'
  | 'unavailable'
  | 'timeout'
  | 'misuse' // our own caller's fault; never crosses the wire
  | 'internal';

export type Retry = 'never' | 'backoff' | 'after-reauthentication';

export type ErrorCode = keyof typeof table;

/** The part of the way at which something failed, as told to the user. */
export type Hop = 'client' | 'network' | 'relay' | 'connector' | 'app';

export interface ErrorRow {
  readonly code: ErrorCode;
  readonly family: Family;
  readonly closeCode: number;
  readonly retry: Retry;
  readonly exitCode: number;
  readonly publicText: string;
}

/** The row of one code. */
export function errorRow(code: ErrorCode): ErrorRow {
  const [family, closeCode, retry, exitCode, publicText] = table[code];
  return { code, family, closeCode, retry, exitCode, publicText };
}

/** Every row, in table order: for documents and tests. */
export function errorRows(): ErrorRow[] {
  return (Object.keys(table) as ErrorCode[]).map(errorRow);
}

/** True when `text` is a code of the table: the only strings from a peer that may change behaviour. */
export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(table, text);
}

export interface ErrorDetails {
  /** What went wrong, for the log and, in a command, for the person who ran it. Never a secret. */
  readonly message?: string;
  /** The next step, as `fix: …`. */
  readonly hint?: string;
  /** A decision id or another handle that support can look up. */
  readonly ref?: string;
  readonly hop?: Hop;
  /** A `snake_case` word, used alike in logs, metrics and audit. */
  readonly reason?: string;
  readonly cause?: unknown;
}

/** The one error class. Behaviour depends on `code` alone, never on `message`. */
export class ZtnaError extends Error {
  override readonly name = 'ZtnaError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly ref: string | undefined;
  readonly hop: Hop | undefined;
  readonly reason: string | undefined;

  constructor(code: ErrorCode, details: ErrorDetails = {}) {
    super(details.message ?? errorRow(code).publicText, { cause: details.cause });
    this.code = code;
    this.hint = details.hint;
    this.ref = details.ref;
    this.hop = details.hop;
    this.reason = details.reason;
  }
}

/** Anything thrown, as a ZtnaError; what is unknown becomes ERR_INTERNAL with its cause kept. */
export function toZtnaError(error: unknown): ZtnaError {
  return error instanceof ZtnaError ? error : new ZtnaError('ERR_INTERNAL', { cause: error });
}

/** The only thing a peer learns of an error: a close code and the code's own name. */
export function toCloseFrame(error: unknown): { closeCode: number; text: ErrorCode } {
  const { code } = toZtnaError(error);
  return { closeCode: errorRow(code).closeCode, text: code };
}

/** What a peer's close frame means to us; a text outside the table means a lost path. */
export function fromCloseFrame(closeCode: number, text: string): ZtnaError {
  if (isErrorCode(text) && errorRow(text).closeCode === closeCode) return new ZtnaError(text);
  return new ZtnaError('ERR_TUNNEL_PATH_LOST', { message: `the path was closed (${closeCode})` });
}
