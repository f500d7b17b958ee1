import {
  fromDevice,
  toDevice,
  toZtnaError,
  wireVersions,
  type FromDevice,
  type ToDevice,
  type TunnelId,
} from '../../protocol/index.ts';
import {
  ControlChannel,
  softwareVersion,
  type ControlClock,
  type DialOptions,
  type Logger,
  type RequestOf,
} from '../../protocol/host/index.ts';
import { expectAnswer, type Answer, type Request, type RequestType } from './agent-messages.ts';
import type { IdentityKeeper } from './identity-keeper.ts';
import { asPassing } from './last-word.ts';

export type DeviceChannel = ControlChannel<ToDevice, FromDevice>;

export interface DeviceChannelOptions {
  readonly dial: DialOptions;
  /** The app that is asked for right behind the greeting. */
  readonly app: string | undefined;
  readonly tunnels: readonly TunnelId[];
  readonly keeper: IdentityKeeper;
  readonly clock: ControlClock;
  readonly onMessage: (message: ToDevice) => void;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** Opens the agent's control channel. Throws as `ControlChannel.open`. */
export function openDeviceChannel(options: DeviceChannelOptions): Promise<DeviceChannel> {
  const { dial, app, tunnels, keeper, clock, onMessage, logger, signal } = options;
  return ControlChannel.open<ToDevice, FromDevice>({
    dial,
    fromSchema: fromDevice,
    toSchema: toDevice,
    hello: {
      type: 'hello',
      versions: wireVersions,
      software: `ztna/${softwareVersion()}`,
      bundleVersion: keeper.identity.bundle.version,
      tunnels: [...tunnels],
    },
    requests: app === undefined ? [] : [{ type: 'grant', app }],
    clock,
    bundle: () => keeper.identity.bundle,
    onBundle: (bundle) => {
      keeper.keepBundle(bundle).catch((error: unknown) => {
        logger.warn('bundle_not_kept', { code: toZtnaError(error).code });
      });
    },
    onMessage,
    logger,
    signal,
  });
}

/**
 * The answer to a request on that channel. Throws the refusal, and ERR_MESSAGE_UNEXPECTED for another answer; a channel
 * that was lost meanwhile refuses nothing, whatever it was lost by.
 */
export async function askOn<T extends RequestType>(
  channel: DeviceChannel,
  message: Request<T>,
): Promise<Answer<T>> {
  let answer: ToDevice;
  try {
    answer = await channel.request(message as RequestOf<FromDevice>);
  } catch (error) {
    throw channel.failure ? asPassing(toZtnaError(error)) : error;
  }
  return expectAnswer(message.type, answer);
}
