import {
  maxAvoidedRelays,
  toZtnaError,
  ZtnaError,
  type Grant,
  type RelayId,
} from '../../protocol/index.ts';
import type { ControlClock, Identity } from '../../protocol/host/index.ts';
import { expectAnswer, type Answer } from './agent-messages.ts';
import { askOn } from './device-channel.ts';
import type { DeviceLink } from './device-link.ts';
import { checkNextPath, readPermit, type Permit, type PermitAnswer } from './permit.ts';
import { isUnheard, type PostureSender } from './posture-sender.ts';
import type { RelayBook } from './relay-book.ts';

/** Control planes of the first version know neither later paths nor relays to avoid. */
const pathVersion = 2;

export interface PermitRequestsOptions {
  readonly link: Pick<DeviceLink, 'channel' | 'takeAhead' | 'distrust'>;
  readonly book: Pick<RelayBook, 'avoided'>;
  readonly posture: Pick<PostureSender, 'hasSaid' | 'said'>;
  readonly clock: Pick<ControlClock, 'require'>;
  readonly identity: () => Identity;
}

/**
 * Asks the control plane for permission for tunnels and for later paths of them, and believes no answer that this
 * deployment's keys do not bear out: a control plane that gives one is left for another.
 */
export class PermitRequests {
  readonly #options: PermitRequestsOptions;

  constructor(options: PermitRequestsOptions) {
    this.#options = options;
  }

  /** Permission for a tunnel to the app. Throws the refusal, or ERR_STATEMENT_REFUSED for a permit that does not hold. */
  async forTunnel(app: string): Promise<Permit> {
    return this.#read(app, await this.#firstAnswer(app));
  }

  /** Asks for another path of a tunnel. Throws the refusal, or why nobody could be asked. */
  async askForPath(
    app: string,
    { tunnel }: Grant,
    avoid: readonly RelayId[],
  ): Promise<PermitAnswer> {
    const { link, book } = this.#options;
    const channel = await link.channel();
    if (channel.welcome.version < pathVersion) {
      throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { hop: 'relay', reason: 'version_old' });
    }
    const all = [...new Set([...avoid, ...book.avoided()])].slice(0, maxAvoidedRelays);
    return askOn(channel, { type: 'path', app, tunnel, avoid: all });
  }

  /** Throws for permission that does not hold here, or is for something else than the next path of `present`'s tunnel. */
  readNextPath(app: string, present: Grant, answer: PermitAnswer): Permit {
    const permit = this.#read(app, answer);
    checkNextPath(permit.verified, present);
    return permit;
  }

  /** What was asked ahead, or else now. A device that was refused before it said anything of itself asks once more. */
  async #firstAnswer(app: string): Promise<PermitAnswer> {
    const { link, posture } = this.#options;
    const ahead = link.takeAhead(app);
    const hadSaid = posture.hasSaid;
    try {
      if (ahead) return expectAnswer('grant', await ahead);
      return await this.#askForTunnel(app);
    } catch (error) {
      if (hadSaid || !isUnheard(toZtnaError(error))) throw error;
      await posture.said();
      return this.#askForTunnel(app);
    }
  }

  /** Asks for a new tunnel, and to leave out relays that failed where the control plane understands that. */
  async #askForTunnel(app: string): Promise<Answer<'grant'> | Answer<'path'>> {
    const { link, book } = this.#options;
    const channel = await link.channel();
    if (channel.welcome.version < pathVersion) return askOn(channel, { type: 'grant', app });
    return askOn(channel, { type: 'path', app, tunnel: null, avoid: book.avoided() });
  }

  #read(app: string, answer: PermitAnswer): Permit {
    const { clock, identity, link } = this.#options;
    try {
      return readPermit(app, answer, { identity: identity(), nowMs: clock.require() });
    } catch (error) {
      if (toZtnaError(error).code === 'ERR_STATEMENT_REFUSED') link.distrust();
      throw error;
    }
  }
}
