import { ZtnaError, type ErrorCode } from '../../../protocol/index.ts';

/** What RFC 7644, table 9, calls faults, and the HTTP status of each. */
const faults = {
  scim_invalid_filter: [400, 'invalidFilter'],
  scim_invalid_syntax: [400, 'invalidSyntax'],
  scim_invalid_path: [400, 'invalidPath'],
  scim_invalid_value: [400, 'invalidValue'],
  scim_no_target: [400, 'noTarget'],
  scim_mutability: [400, 'mutability'],
  scim_too_many: [400, 'tooMany'],
  scim_uniqueness: [409, 'uniqueness'],
  scim_not_found: [404, null],
  scim_method: [405, null],
  scim_not_supported: [501, null],
} as const;

export type ScimFault = keyof typeof faults;

/** What an error is to whoever provisions; `detail` is safe to tell. */
export interface ScimRefusal {
  readonly status: number;
  readonly scimType: string | null;
  readonly detail: string;
}

/** Refuses a request; `detail` is shown to the people who look after the directory. */
export function refuseScim(fault: ScimFault, detail: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_MESSAGE_MALFORMED', { message: detail, reason: fault, cause });
}

/** Statuses of refusals that come from elsewhere than SCIM's own files. */
const others: Partial<Record<ErrorCode, readonly [number, string | null]>> = {
  ERR_CONFIG_EXISTS: [409, 'uniqueness'],
  ERR_CONFIG_USAGE: [400, 'invalidValue'],
  ERR_MESSAGE_TOO_LARGE: [413, null],
  ERR_LIMIT_RATE: [429, null],
  ERR_RELAY_UNAVAILABLE: [503, null],
};

/** The answer to an error; undefined for one that is a fault of our own. */
export function refusalOf(error: ZtnaError): ScimRefusal | undefined {
  const { code, reason, message } = error;
  if (code === 'ERR_MESSAGE_MALFORMED') {
    const own = reason !== undefined && Object.hasOwn(faults, reason);
    const [status, scimType] = faults[own ? (reason as ScimFault) : 'scim_invalid_syntax'];
    return { status, scimType, detail: message };
  }
  const other = others[code];
  return other && { status: other[0], scimType: other[1], detail: message };
}
