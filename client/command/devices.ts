import { isId, toZtnaError, ZtnaError } from '../../protocol/index.ts';
import { printJsonLine, printTable } from '../../protocol/host/index.ts';
import { toIsoTime } from '../agent/tunnel-event.ts';
import { askLine, canAsk, cannotAsk } from '../ask.ts';
import { say, withAgent, type GlobalOptions } from './context.ts';

export interface DeviceRevokeOptions extends GlobalOptions {
  readonly device: string;
  /** Revoke this machine without asking. */
  readonly isSure: boolean;
}

/** Lists the user's own devices. */
export async function runDevicesList(options: GlobalOptions): Promise<void> {
  await withAgent(options, async (agent) => {
    const { devices } = await agent.request({ type: 'devices' });
    const rows = devices.map(({ enrolledAtMs, lastSeenAtMs, ...device }) => ({
      ...device,
      enrolledAt: toIsoTime(enrolledAtMs),
      lastSeenAt: lastSeenAtMs === null ? null : toIsoTime(lastSeenAtMs),
    }));
    if (options.json) for (const row of rows) printJsonLine(row);
    else {
      const shown = rows.map(({ isThis, isOnline, ...row }) => ({
        ...row,
        seen: isThis ? 'this machine' : isOnline ? 'online' : row.lastSeenAt,
      }));
      const columns = ['device', 'hostname', 'platform', 'state', 'seen', 'enrolledAt'];
      process.stdout.write(printTable(shown, columns));
    }
  });
}

/** Ends one of the user's devices for good: its sessions and tunnels end with it. Asks first where it is this one. */
export async function runDevicesRevoke(options: DeviceRevokeOptions): Promise<void> {
  const { device } = options;
  if (!isId('device', device)) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: 'that is not the id of a device',
      hint: 'see: ztna devices list',
      hop: 'client',
    });
  }
  await withAgent(options, async (agent) => {
    const isThis = device === agent.identity.id;
    if (isThis && !options.isSure) await askIfSure();
    try {
      await agent.request({ type: 'device_revoke', device });
    } catch (thrown) {
      // The channel of this machine may end before the answer is here.
      if (!isThis || toZtnaError(thrown).code !== 'ERR_IDENTITY_REVOKED') throw thrown;
    }
    if (options.json) printJsonLine({ device, state: 'revoked' });
    else say(isThis ? 'revoked this machine; to come back, enrol it anew' : `revoked ${device}`);
  });
}

async function askIfSure(): Promise<void> {
  if (!canAsk()) throw cannotAsk('it is this machine that would be revoked; say so with --yes');
  const answer = await askLine('this is the machine that you are at; to revoke it, type yes');
  if (answer !== 'yes') throw cannotAsk('nothing was revoked', 'the answer was not yes');
}
