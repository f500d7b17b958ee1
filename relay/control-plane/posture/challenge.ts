import { randomBytes } from 'node:crypto';
import {
  verifyingKey,
  verifyPosture,
  ZtnaError,
  type DeviceId,
  type DevicePosture,
} from '../../../protocol/index.ts';
import { maxPostureAheadMs } from '../limits.ts';
import type { HeardPosture } from './book.ts';

/**
 * One control channel's word for what may be said on it: statements count that name its nonce, in ascending order, signed by
 * the device that holds the channel. What was signed for another channel, or twice, counts for nothing.
 */
export class PostureChallenge {
  readonly nonce = randomBytes(16).toString('base64url');
  readonly #device: DeviceId;
  readonly #key: ReturnType<typeof verifyingKey>;
  #sequence = -1;

  /** `signingKey` is the device's, in base64url. */
  constructor(device: DeviceId, signingKey: string) {
    this.#device = device;
    this.#key = verifyingKey(Buffer.from(signingKey, 'base64url'));
  }

  /**
   * What a statement says. Throws ERR_STATEMENT_REFUSED for one that does not count, with the reason, and ERR_MESSAGE_* for one
   * that cannot be read.
   */
  receive(statement: string, nowMs: number): HeardPosture {
    const said = verifyPosture(statement, this.#key);
    if (said.device !== this.#device) throw refused('device_other');
    if (said.nonce !== this.nonce) throw refused('nonce_other');
    if (said.sequence <= this.#sequence) throw refused('sequence_old');
    if (said.atMs > nowMs + maxPostureAheadMs) throw refused('posture_ahead');
    this.#sequence = said.sequence;
    return { facts: withoutDoubles(said.facts), atMs: Math.min(said.atMs, nowMs) };
  }
}

/** A check that is told twice with different results is not known. */
function withoutDoubles(facts: DevicePosture): DevicePosture {
  const checks = new Map<string, DevicePosture['checks'][number]>();
  for (const [name, result, how] of facts.checks) {
    const known = checks.get(name);
    const isSame = known === undefined || known[1] === result;
    checks.set(name, isSame ? [name, result, how] : [name, 'unknown', 'told twice']);
  }
  return { ...facts, checks: [...checks.values()] };
}

function refused(reason: string): ZtnaError {
  return new ZtnaError('ERR_STATEMENT_REFUSED', { reason, hop: 'client' });
}
