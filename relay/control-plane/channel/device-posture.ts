import { suspendableVersion, toZtnaError, type DeviceId } from '../../../protocol/index.ts';
import type { ControlPeer } from '../listener/secure-listener.ts';
import type { DevicePeer } from '../live/peers.ts';
import type { PostureChallenge } from '../posture/index.ts';
import type { Services } from '../services.ts';

/** Statements come three times before the newest counts no more. */
const statementsPerAge = 3;

/** Asks for posture on a channel whose end knows of it. */
export function askForPosture(
  { settings }: Services,
  peer: DevicePeer,
  challenge: PostureChallenge,
): void {
  if (peer.version < suspendableVersion) return;
  const { maxAgeMs, checks } = settings.posture;
  peer.send({
    type: 'posture_wanted',
    nonce: challenge.nonce,
    everyMs: Math.floor(maxAgeMs / statementsPerAge),
    maxAgeMs,
    checks: [...checks],
  });
}

/**
 * Takes a statement of posture. What changes a decision has the device's tunnels verified at once. One that does not count is
 * put on record and otherwise ignored: silence is what it amounts to.
 */
export async function hearPosture(
  services: Services,
  dialler: ControlPeer,
  challenge: PostureChallenge,
  statement: string,
): Promise<void> {
  const { clock, postures, refusals } = services;
  const device = dialler.id as DeviceId;
  try {
    const heard = challenge.receive(statement, clock.nowMs());
    const hasChanged = postures.note(device, heard);
    if (hasChanged) verifyDevice(services, device);
    services.compliance.note(services, device, hasChanged);
  } catch (error) {
    const { code, reason = null } = toZtnaError(error);
    await refusals.record(dialler.address, {
      actor: `device:${device}`,
      action: 'posture.refuse',
      subject: device,
      details: { code, reason, address: dialler.address },
    });
  }
}

/** Has every tunnel of a device verified at once, whichever control plane does that. */
export function verifyDevice(
  { tunnels, schedule, clock, self, store }: Services,
  device: DeviceId,
): void {
  const nowMs = clock.nowMs();
  for (const tunnel of tunnels.about('device', device)) {
    if (tunnel.owner === self.id || store.engine === 'sqlite') schedule.hasten(tunnel.id, nowMs);
  }
}
