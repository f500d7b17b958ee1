import {
  postureStatementSchema,
  signingKey,
  signStatement,
  type DevicePosture,
} from '../../../../protocol/index.ts';
import type { DevicePeer, Rig } from './rig.ts';

let sequence = 0;

/** Has a device say so of itself, over the nonce of its channel, as its agent would. */
export async function sayPosture(
  rig: Rig,
  device: DevicePeer,
  checks: readonly DevicePosture['checks'][number][],
): Promise<void> {
  const nonce = await device.find((message) =>
    message.type === 'posture_wanted' ? message.nonce : undefined,
  );
  const statement = signStatement(
    'posture',
    postureStatementSchema,
    {
      device: device.identity.id as never,
      nonce,
      sequence: sequence++,
      atMs: rig.plane.services.clock.nowMs(),
      facts: { platform: 'linux', osVersion: '12.4', clientVersion: '0.1.0', checks: [...checks] },
    },
    signingKey(device.identity.signingKey),
  );
  device.channel.send({ type: 'posture', statement });
}
