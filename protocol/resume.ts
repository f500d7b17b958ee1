import { createHmac, timingSafeEqual } from 'node:crypto';
import { ZtnaError } from './errors.ts';
import { decodeCount, encodeResume, FrameType, readFrames } from './frame.ts';
import { RecordWriter } from './record-writer.ts';
import type { Transport } from './handshake.ts';

/*
 * Taking up a tunnel again on another path, after a handshake under a grant of a higher generation:
 *
 *   client                                   connector
 *   RESUME {proof}                  ─────▶   grant, then proof checked; its old path is retired
 *   checked; old path retired       ◀─────   RESUME {proof}, RESUMED {n: has all of the client's up to n}
 *   RESUMED {m}, frames above n     ─────▶
 *                                   ◀─────   frames above m
 *
 * A proof is an HMAC over the new handshake's hash under a secret of the tunnel's first handshake, so it shows that
 * the other end is the one the tunnel was opened with, and serves on this path alone.
 */

declare const resumeSecret: unique symbol;

/** What proves the ends of one tunnel to each other on later paths. Known to both and to nobody else. */
export type ResumeSecret = Buffer & { readonly [resumeSecret]: true };

/** The secret of a tunnel, from the handshake of its first path. */
export function resumeSecretOf(first: Transport): ResumeSecret {
  return first.exportSecret('resume') as ResumeSecret;
}

declare const resumed: unique symbol;

/** Proof that the other end of a new path is the tunnel's own: what an endpoint goes on with. */
export type ResumedPath = { readonly [resumed]: true } & (
  | { readonly role: 'client'; readonly peerNumber: number }
  | { readonly role: 'connector'; readonly proof: Buffer }
);

interface ResumeOptions {
  readonly secret: ResumeSecret;
  /** Of the new path's handshake. */
  readonly transport: Transport;
}

/** The client's side: `request` goes out as the first record, the first record that comes is `receive`d. */
export class ClientResume {
  readonly #options: ResumeOptions;

  constructor(options: ResumeOptions) {
    this.#options = options;
  }

  request(): Buffer[] {
    const record = new RecordWriter();
    record.addFrame(FrameType.Resume, 0, 0, encodeResume(proofOf(this.#options, 'client')));
    return record.finish() ?? [];
  }

  /** Throws ERR_TUNNEL_RESUME_REFUSED for a wrong proof, ERR_FRAME_UNEXPECTED or ERR_FRAME_MALFORMED. */
  receive(plaintext: Buffer): ResumedPath {
    const [resume, numbered, ...others] = readFrames(plaintext);
    const isInOrder =
      resume?.type === FrameType.Resume &&
      numbered?.type === FrameType.Resumed &&
      others.length === 0;
    if (!isInOrder) throw unexpected();
    check(resume.payload, proofOf(this.#options, 'connector'));
    return { role: 'client', peerNumber: decodeCount(numbered.payload) } as ResumedPath;
  }
}

/** The connector's side: the first record of a client that was admitted to a tunnel that is there. */
export class ConnectorResume {
  readonly #options: ResumeOptions;

  constructor(options: ResumeOptions) {
    this.#options = options;
  }

  /** Throws ERR_TUNNEL_RESUME_REFUSED for a wrong proof, ERR_FRAME_UNEXPECTED or ERR_FRAME_MALFORMED. */
  receive(plaintext: Buffer): ResumedPath {
    const [resume, ...others] = readFrames(plaintext);
    if (resume?.type !== FrameType.Resume || others.length > 0) throw unexpected();
    check(resume.payload, proofOf(this.#options, 'client'));
    return { role: 'connector', proof: proofOf(this.#options, 'connector') } as ResumedPath;
  }
}

function proofOf({ secret, transport }: ResumeOptions, side: 'client' | 'connector'): Buffer {
  return createHmac('sha256', secret)
    .update(`ztna-resume ${side}\0`)
    .update(transport.handshakeHash)
    .digest();
}

function check(proof: Buffer, expected: Buffer): void {
  if (timingSafeEqual(proof, expected)) return;
  throw new ZtnaError('ERR_TUNNEL_RESUME_REFUSED', { reason: 'proof_wrong' });
}

function unexpected(): ZtnaError {
  return new ZtnaError('ERR_FRAME_UNEXPECTED', {
    message: 'a frame came at the wrong moment: a tunnel is taken up with RESUME',
  });
}
