import { verificationOf } from '../settings.ts';
import type { RelayId, TunnelId } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import type { Reader, Tx } from '../store/index.ts';
import { tunnelColumns } from './audience.ts';
import type { LiveTunnel } from './tunnel-index.ts';

/** Which tunnels to read: those about a subject, those with these ids, or all that are live or may yet be opened. */
export type Which =
  | { readonly kind: keyof typeof tunnelColumns; readonly id: string }
  | { readonly ids: readonly TunnelId[] }
  | { readonly nowMs: number };

/** Reads tunnels as this process keeps them. Of a subject's, those that are closed are left out. */
export async function readTunnels(
  { settings, clock }: Pick<Services, 'settings' | 'clock'>,
  db: Reader | Tx,
  which: Which,
): Promise<LiveTunnel[]> {
  let select = db
    .selectFrom('tunnels')
    .leftJoin('apps', 'apps.id', 'tunnels.appId')
    .leftJoin('users', 'users.id', 'tunnels.userId')
    .leftJoin('decisions', 'decisions.id', 'tunnels.decisionId')
    .selectAll('tunnels')
    .select(['apps.name as appName', 'users.name as userName'])
    .select(['decisions.inputDigest', 'decisions.policyVersion', 'decisions.inputsJson']);
  if ('ids' in which) select = select.where('tunnels.id', 'in', which.ids);
  else if ('kind' in which) {
    select = select
      .where(`tunnels.${tunnelColumns[which.kind]}`, '=', which.id as never)
      .where('tunnels.state', '!=', 'closed');
  } else {
    const { nowMs } = which;
    select = select.where((eb) =>
      eb.or([
        eb('tunnels.state', 'in', ['granted', 'open', 'detached']),
        eb('tunnels.grantExpiresAtMs', '>', nowMs),
      ]),
    );
  }
  const rows = await select.execute();
  const nowMs = clock.nowMs();
  return rows.map((row) => {
    const appName = row.appName ?? row.appId;
    return {
      id: row.id,
      user: row.userId,
      session: row.sessionId,
      device: row.deviceId,
      app: row.appId,
      appName,
      userName: row.userName ?? row.userId,
      connector: row.connectorId,
      instance: row.instance,
      owner: row.owner,
      intervalMs: verificationOf(settings, appName).intervalMs,
      version: row.version,
      holdMs: row.holdMs,
      generation: row.generation,
      pathGeneration: 0, // its connector tells
      relay: row.relayId,
      keptRelay: row.relayId,
      relays: JSON.parse(row.relaysJson) as RelayId[],
      grantExpiresAtMs: row.grantExpiresAtMs,
      address: addressIn(row.inputsJson),
      decision: row.decisionId,
      policyVersion: row.policyVersion ?? 0,
      state: row.state,
      detachedAtMs: row.detachedAtMs,
      suspension:
        row.suspendedFor === null
          ? null
          : { reason: row.suspendedFor, fix: row.suspensionFix ?? '' },
      isAwaited: false,
      // The newest lease that was sent is not written down; none reaches further than this.
      untilMs: Math.max(row.untilMs, nowMs + maxLeaseMs),
      bytes: { up: row.bytesUp, down: row.bytesDown, atMs: 0 }, // its connector tells
      inputDigest: row.inputDigest ?? '',
      confirmations: 0,
    };
  });
}

/** The longest lease there is: three of the longest intervals. */
const maxLeaseMs = 60_000;

/** Where the agent was when the stored decision was made; it counts until its channel is back. */
function addressIn(inputsJson: string | null): string {
  const inputs = JSON.parse(inputsJson ?? '{}') as {
    context?: { network?: { address?: unknown } };
  };
  const address = inputs.context?.network?.address;
  return typeof address === 'string' ? address : 'unknown';
}
