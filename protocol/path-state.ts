import { ZtnaError } from './errors.ts';
import { encodeCount, encodeResume, FrameType } from './frame.ts';
import type { RecordWriter } from './record-writer.ts';
import type { ResumedPath } from './resume.ts';
import type { SentFrames } from './sent-frames.ts';

/**
 * How one end of a tunnel stands with its path, and what it opens a later one with:
 *
 *   up ──leave()──▶ none ──begin()──▶ up                     (also up ──begin()──▶ up: a move)
 *                   connector: ──begin()──▶ answered ──confirm()──▶ up
 *
 * Each end states in RESUMED what it has of the other's frames, the connector's end behind its proof; until it has
 * heard the client's number it sends nothing else.
 */
export class PathState {
  readonly #sent: Pick<SentFrames, 'mayHave'>;
  #state: 'up' | 'answered' | 'none' = 'up';
  /** What opens a later path, until it is put into a record. */
  #opening: ResumedPath | undefined;

  /** The first path is up from the start. `sent` knows what the peer may have. */
  constructor(sent: Pick<SentFrames, 'mayHave'>) {
    this.#sent = sent;
  }

  /** True while there is a path, answered or up. */
  get isThere(): boolean {
    return this.#state !== 'none';
  }

  /** True while streams move on it. */
  get isUp(): boolean {
    return this.#state === 'up';
  }

  /** True at a connector's end that waits for RESUMED. */
  get isAnswered(): boolean {
    return this.#state === 'answered';
  }

  /** There is no path any more. */
  leave(): void {
    this.#state = 'none';
    this.#opening = undefined;
  }

  /**
   * Another path takes over. Throws ERR_TUNNEL_RESUME_REFUSED, and changes nothing, when the peer states a number that
   * cannot be true.
   */
  begin(path: ResumedPath): void {
    if (path.role === 'client') this.#check(path.peerNumber);
    this.#state = path.role === 'client' ? 'up' : 'answered';
    this.#opening = path;
  }

  /** The client has stated what it has of our frames. Throws ERR_TUNNEL_RESUME_REFUSED as `begin` does. */
  confirm(number: number): void {
    this.#check(number);
    this.#state = 'up';
  }

  /** Adds, once, what opens the path; `receivedNumber` is the last frame that has arrived in order. */
  addOpening(record: RecordWriter, receivedNumber: number): void {
    if (!this.#opening) return;
    if (this.#opening.role === 'connector') {
      record.addFrame(FrameType.Resume, 0, 0, encodeResume(this.#opening.proof));
    }
    this.#opening = undefined;
    record.addFrame(FrameType.Resumed, 0, 0, encodeCount(receivedNumber));
  }

  #check(number: number): void {
    if (this.#sent.mayHave(number)) return;
    throw new ZtnaError('ERR_TUNNEL_RESUME_REFUSED', { reason: 'number_impossible' });
  }
}
