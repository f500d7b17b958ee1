import { ZtnaError } from '../../../../protocol/index.ts';
import { closeWhenTold, revokeSubject } from '../../access/end-tunnels.ts';
import { isHealthyAt } from '../../grant/choose-connector.ts';
import { defineCommand, type Command } from '../command.ts';
import { getConnector, getDevice, getTunnel } from '../lookup.ts';
import { byId, none } from './schema.ts';
import type { Services } from '../../services.ts';
import type { Connector, Device, Tunnel, Tx } from '../../store/index.ts';

/** Rows shown of what only grows. */
export const maxRows = 500;

export async function nameOfUser(services: Services, id: Device['userId']): Promise<string> {
  const row = await services.store.db
    .selectFrom('users')
    .select('name')
    .where('id', '=', id)
    .executeTakeFirst();
  return row?.name ?? id;
}

async function describeConnector(services: Services, row: Connector) {
  const peer = services.peers.connectors.get(row.id);
  const site = await services.store.db
    .selectFrom('sites')
    .select('name')
    .where('id', '=', row.siteId)
    .executeTakeFirst();
  return {
    id: row.id,
    name: row.name,
    site: site?.name ?? row.siteId,
    state: row.state,
    online: peer !== undefined,
    stopping: peer?.isStopping ?? false,
    apps: [...(peer?.apps ?? [])],
    unhealthy: peer ? [...peer.apps].filter((name) => !isHealthyAt(peer, name)) : [],
    address: peer?.address ?? null,
    instance: row.instance,
    openTunnels: services.tunnels.about('connector', row.id).length,
    certificateUntilMs: row.certificateNotAfterMs,
    lastSeenAtMs: row.lastSeenAtMs,
    createdAtMs: row.createdAtMs,
  };
}

async function describeDevice(services: Services, row: Device) {
  const peers = services.peers.devices(row.id);
  return {
    id: row.id,
    user: await nameOfUser(services, row.userId),
    hostname: row.hostname,
    platform: row.platform,
    state: row.state,
    restrictedBy: JSON.parse(row.restrictedJson) as string[],
    unhealthy: row.unhealthy === 1,
    online: peers.length > 0,
    address: peers.at(-1)?.address ?? null,
    openTunnels: services.tunnels.about('device', row.id).length,
    certificateUntilMs: row.certificateNotAfterMs,
    lastSeenAtMs: row.lastSeenAtMs,
    createdAtMs: row.createdAtMs,
  };
}

async function describeTunnel(services: Services, row: Tunnel) {
  const live = services.tunnels.get(row.id);
  const app = await services.store.db
    .selectFrom('apps')
    .select('name')
    .where('id', '=', row.appId)
    .executeTakeFirst();
  return {
    id: row.id,
    user: await nameOfUser(services, row.userId),
    app: live?.appName ?? app?.name ?? row.appId,
    state: row.state,
    version: row.version,
    generation: row.generation,
    relay: live?.relay ?? row.relayId,
    detachedAtMs: row.detachedAtMs,
    device: row.deviceId,
    session: row.sessionId,
    connector: row.connectorId,
    decision: live?.decision ?? row.decisionId,
    untilMs: row.state === 'closed' ? row.untilMs : (live?.untilMs ?? row.untilMs),
    openedAtMs: row.openedAtMs,
    closedAtMs: row.closedAtMs,
    closeReason: row.closeReason,
    closeCode: row.closeCode,
    bytesUp: row.bytesUp,
    bytesDown: row.bytesDown,
  };
}

async function setDeviceState(
  services: Services,
  actor: string,
  id: string,
  action: 'approve' | 'disable' | 'enable',
) {
  return services.store.write(async (tx) => {
    const device = await getDevice(tx, id);
    const from = { approve: 'pending', disable: 'enrolled', enable: 'disabled' } as const;
    if (device.state !== from[action]) {
      throw new ZtnaError('ERR_CONFIG_USAGE', {
        message: `device ${device.id} is ${device.state}, so it cannot be ${action}d`,
      });
    }
    const state = action === 'disable' ? 'disabled' : 'enrolled';
    await tx.updateTable('devices').set({ state }).where('id', '=', device.id).execute();
    const tunnelsEnded =
      action === 'disable'
        ? await revokeSubject(services, tx, { kind: 'device', id: device.id }, 'device_disabled')
        : 0;
    await services.audit.append(
      {
        actor,
        action: `device.${action}`,
        subject: device.id,
        outcome: 'ok',
        details: { tunnelsEnded },
      },
      tx,
    );
    return { id: device.id, tunnelsEnded };
  });
}

/** Removes a connector for good: its certificate opens nothing any more and its tunnels end. */
export async function removeConnector(
  services: Services,
  tx: Tx,
  row: Connector,
  reason: string,
): Promise<number> {
  await tx.updateTable('connectors').set({ state: 'removed' }).where('id', '=', row.id).execute();
  const count = await revokeSubject(services, tx, { kind: 'connector', id: row.id }, reason);
  services.store.afterCommit(tx, () => {
    closeWhenTold(services, () => services.peers.connectors.get(row.id));
  });
  return count;
}

export const objectCommands: readonly Command[] = [
  defineCommand('connector.list', 'read', none, async (services) => {
    const rows = await services.store.db
      .selectFrom('connectors')
      .selectAll()
      .where('state', '!=', 'removed')
      .orderBy('name')
      .execute();
    return Promise.all(rows.map((row) => describeConnector(services, row)));
  }),
  defineCommand('connector.show', 'read', byId, async (services, { id }) =>
    describeConnector(services, await getConnector(services.store.db, id)),
  ),
  defineCommand('connector.remove', 'change', byId, async (services, { id }, actor) =>
    services.store.write(async (tx) => {
      const row = await getConnector(tx, id);
      const tunnelsEnded = await removeConnector(services, tx, row, 'connector_removed');
      await services.audit.append(
        {
          actor,
          action: 'connector.remove',
          subject: row.id,
          outcome: 'ok',
          details: { tunnelsEnded },
        },
        tx,
      );
      return { id: row.id, tunnelsEnded };
    }),
  ),

  defineCommand('device.list', 'read', none, async (services) => {
    const rows = await services.store.db
      .selectFrom('devices')
      .selectAll()
      .orderBy('createdAtMs')
      .execute();
    return Promise.all(rows.map((row) => describeDevice(services, row)));
  }),
  defineCommand('device.show', 'read', byId, async (services, { id }) =>
    describeDevice(services, await getDevice(services.store.db, id)),
  ),
  ...(['approve', 'disable', 'enable'] as const).map((action) =>
    defineCommand(`device.${action}`, 'change', byId, (services, { id }, actor) =>
      setDeviceState(services, actor, id, action),
    ),
  ),

  defineCommand('tunnel.list', 'read', none, async (services) => {
    const rows = await services.store.db
      .selectFrom('tunnels')
      .selectAll()
      .orderBy('createdAtMs', 'desc')
      .limit(maxRows)
      .execute();
    return Promise.all(rows.map((row) => describeTunnel(services, row)));
  }),
  defineCommand('tunnel.show', 'read', byId, async (services, { id }) =>
    describeTunnel(services, await getTunnel(services.store.db, id)),
  ),

  defineCommand('decision.list', 'read', none, async (services) => {
    const rows = await services.store.db
      .selectFrom('decisions')
      .leftJoin('users', 'users.id', 'decisions.userId')
      .select(['decisions.id', 'decidedAtMs', 'users.name as user', 'appName as app', 'verdict'])
      .select(['policyVersion', 'reasonsJson', 'confirmations', 'decisions.userId'])
      .orderBy('decidedAtMs', 'desc')
      .limit(maxRows)
      .execute();
    return rows.map(({ reasonsJson, userId, user, ...row }) => ({
      ...row,
      user: user ?? userId,
      reasons: JSON.parse(reasonsJson) as string[],
    }));
  }),
  defineCommand('decision.show', 'read', byId, async (services, { id }) => {
    const row = await services.store.db
      .selectFrom('decisions')
      .selectAll()
      .where('id', '=', id as Tunnel['decisionId'])
      .executeTakeFirst();
    if (!row)
      throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `there is no decision ${id}` });
    const { reasonsJson, errorsJson, inputsJson, ...rest } = row;
    return {
      ...rest,
      user: await nameOfUser(services, row.userId),
      reasons: JSON.parse(reasonsJson) as unknown,
      errors: JSON.parse(errorsJson) as unknown,
      inputs: JSON.parse(inputsJson) as unknown,
    };
  }),
];
