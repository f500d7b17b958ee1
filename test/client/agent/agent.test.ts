import { readFile } from 'node:fs/promises';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Agent } from '../../../client/agent/agent.ts';
import type { Tunnel } from '../../../client/agent/tunnel.ts';
import {
  errorRow,
  newId,
  newNoiseKeyPair,
  rawPublicKey,
  relayListSchema,
  signStatement,
  type Grant,
} from '../../../protocol/index.ts';
import { newSigningKey } from '../../support/authority.ts';
import { AgentRig } from './agent-rig.ts';

/** An agent with one open tunnel under that grant. */
async function openTunnel(
  t: ExecutionContext,
  changes: Partial<Grant> = {},
): Promise<{ rig: AgentRig; agent: Agent; tunnel: Tunnel; grant: Grant }> {
  const rig = await AgentRig.start(t);
  const grant = rig.grant(changes);
  rig.answer = ({ type }) => (type === 'grant' ? rig.permit(grant) : undefined);
  const agent = await rig.agent(t);
  const tunnel = await agent.openTunnel(await agent.requestPermit('wiki'));
  await tunnel.accepted;
  return { rig, agent, tunnel, grant };
}

test.serial('Agent - opens a tunnel with the permit that it asked for', async (t) => {
  const rig = await AgentRig.start(t);
  const asked: unknown[] = [];
  rig.answer = (message) => {
    asked.push(message);
    return rig.permit();
  };
  const agent = await rig.agent(t);
  const permit = await agent.requestPermit('wiki');
  t.deepEqual(asked, [{ type: 'grant', id: 1, app: 'wiki' }]);
  t.is(permit.portHint, 5432);
  const tunnel = await agent.openTunnel(permit);
  await tunnel.accepted;
  t.true(tunnel.isOpen);
});

test.serial('Agent - goes past a relay that refuses and one that is silent', async (t) => {
  const rig = await AgentRig.start(t);
  const [refusing, silent] = [createServer(), createServer()];
  const urls: string[] = [];
  const sockets: Socket[] = [];
  for (const server of [refusing, silent]) {
    server.on('connection', (socket) => sockets.push(socket));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    urls.push(`https://127.0.0.1:${(server.address() as AddressInfo).port}`);
  }
  refusing.close();
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  const others = [newId('relay'), newId('relay')];
  const grant = rig.grant({ relays: [...others, rig.relay] });
  rig.answer = () => {
    const permit = rig.permit(grant);
    const dead = others.map((id, i) => ({ id, url: urls[i] }));
    return { ...permit, relays: [...dead, ...(permit['relays'] as object[])] };
  };
  const agent = await rig.agent(t);
  const tunnel = await agent.openTunnel(await agent.requestPermit('wiki'));
  await tunnel.accepted;
  t.is(rig.paths.length, 1);
});

test.serial(
  'Agent - leaves a control plane that drains for one that does not, and keeps the list',
  async (t) => {
    const [a, b] = [await AgentRig.start(t), await AgentRig.start(t)];
    const agent = await a.agent(t);
    const relays = [a, b].map((rig) => ({
      id: newId('relay'),
      url: rig.control.url,
      isControl: true,
      isDraining: rig === a,
    }));
    const statement = signStatement(
      'relays',
      relayListSchema,
      { version: 1, relays },
      a.pki.grantKey,
    );
    a.push({ type: 'relays', statement });
    await b.until(() => b.hellos[0]);
    b.answer = () => ({ type: 'done' });
    await agent.request({ type: 'sign_out' });
    t.is(b.hellos.length, 1);
    await agent.stop();
    const kept = JSON.parse(await readFile(join(a.dir, 'relays.json'), 'utf8')) as object;
    t.like(kept, { statement, last: b.control.url });
  },
);

/** Counts the TLS connections that the data plane of the rig takes, and those of them that are still open. */
function countDataSockets(rig: AgentRig): {
  total: number;
  open: number;
  readonly idle: Promise<void>;
} {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const counts = { total: 0, open: 0, idle: promise.then(() => undefined) };
  rig.data.server.on('secureConnection', (socket) => {
    counts.total++;
    counts.open++;
    socket.once('close', () => {
      counts.open--;
      if (counts.open === 0) resolve(undefined);
    });
  });
  return counts;
}

test.serial(
  'Agent - asks for its first app while connecting, on a path dialled ahead',
  async (t) => {
    const rig = await AgentRig.start(t);
    const sockets = countDataSockets(rig);
    const asked: unknown[] = [];
    rig.answer = (message) => {
      asked.push(message);
      return rig.permit();
    };
    const agent = await rig.agent(t, 'wiki');
    const permit = await agent.requestPermit('wiki');
    const first = { type: 'grant', id: 1, app: 'wiki' };
    t.deepEqual(asked, [first]);
    const tunnel = await agent.openTunnel(permit);
    await tunnel.accepted;
    t.is(sockets.total, 1);
    // What came ahead is used once: the next permission is asked for anew, and its path dialled.
    const next = await agent.openTunnel(await agent.requestPermit('wiki'));
    await next.accepted;
    t.deepEqual(asked, [first, { ...first, id: 2 }]);
    t.is(sockets.total, 2);
  },
);

test.serial('Agent - does not use for one app what it asked for another', async (t) => {
  const rig = await AgentRig.start(t);
  const asked: unknown[] = [];
  rig.answer = (message) => {
    asked.push(message['app']);
    return rig.permit();
  };
  const agent = await rig.agent(t, 'wiki');
  await agent.requestPermit('db');
  t.deepEqual(asked, ['wiki', 'db']);
});

test.serial('Agent - closes the path dialled ahead when permission is refused', async (t) => {
  const rig = await AgentRig.start(t);
  const sockets = countDataSockets(rig);
  const refusal = {
    type: 'refusal',
    code: 'ERR_POLICY_DENIED',
    message: null,
    fix: null,
    ref: null,
  };
  rig.answer = () => refusal;
  const agent = await rig.agent(t, 'wiki');
  await t.throwsAsync(agent.requestPermit('wiki'), { code: 'ERR_POLICY_DENIED' });
  await agent.stop();
  if (sockets.total > 0) await sockets.idle;
  t.is(sockets.open, 0);
  t.is(rig.paths.length, 0);
});

test.serial('Agent - verifies a permit that came ahead as any other', async (t) => {
  const rig = await AgentRig.start(t);
  rig.answer = () => rig.permit(rig.grant(), newSigningKey());
  const agent = await rig.agent(t, 'wiki');
  await t.throwsAsync(agent.requestPermit('wiki'), { code: 'ERR_STATEMENT_REFUSED' });
  t.is(rig.paths.length, 0);
});

const stranger = rawPublicKey(newNoiseKeyPair().publicKey).toString('base64url');
const refusedPermits: readonly [
  name: string,
  code: string,
  permit: (rig: AgentRig) => Record<string, unknown>,
][] = [
  [
    'for another device',
    'ERR_GRANT_MISMATCH',
    (rig) => rig.permit(rig.grant({ device: newId('device') })),
  ],
  [
    'for another key',
    'ERR_GRANT_MISMATCH',
    (rig) => rig.permit(rig.grant({ deviceKey: stranger })),
  ],
  [
    'for a connector that the roster does not vouch for',
    'ERR_GRANT_MISMATCH',
    (rig) => rig.permit(rig.grant({ connector: newId('connector') })),
  ],
  [
    'for an app that the connector does not serve',
    'ERR_GRANT_MISMATCH',
    (rig) => rig.permit(rig.grant({ app: newId('app') })),
  ],
  [
    'that has expired',
    'ERR_RELAY_UNAVAILABLE',
    (rig) =>
      rig.permit(rig.grant({ issuedAtMs: Date.now() - 60_000, expiresAtMs: Date.now() - 1 })),
  ],
  [
    'signed by a stranger',
    'ERR_STATEMENT_REFUSED',
    (rig) => rig.permit(rig.grant(), newSigningKey()),
  ],
  [
    'with a stranger’s roster entry',
    'ERR_STATEMENT_REFUSED',
    (rig) => ({ ...rig.permit(), roster: rig.permit()['grant'] }),
  ],
];
for (const [name, code, permit] of refusedPermits) {
  test.serial(`Agent - refuses a permit ${name}`, async (t) => {
    const rig = await AgentRig.start(t);
    rig.answer = () => permit(rig);
    const agent = await rig.agent(t);
    await t.throwsAsync(agent.requestPermit('wiki'), { code });
    t.is(rig.paths.length, 0);
  });
}

test.serial('Agent - uses no relay that the grant does not name', async (t) => {
  const rig = await AgentRig.start(t);
  rig.answer = () => ({ ...rig.permit(), relays: [{ id: newId('relay'), url: rig.data.url }] });
  const agent = await rig.agent(t);
  const permit = await agent.requestPermit('wiki');
  await t.throwsAsync(agent.openTunnel(permit), { code: 'ERR_CONNECTOR_OFFLINE' });
  t.is(rig.paths.length, 0);
});

test.serial('Agent - tries the next relay when one cannot be reached', async (t) => {
  const rig = await AgentRig.start(t);
  const other = newId('relay');
  rig.answer = () => ({
    ...rig.permit(rig.grant({ relays: [other, rig.relay] })),
    relays: [
      { id: other, url: 'https://127.0.0.1:1' },
      { id: rig.relay, url: rig.data.url },
    ],
  });
  const agent = await rig.agent(t);
  const tunnel = await agent.openTunnel(await agent.requestPermit('wiki'));
  await t.notThrowsAsync(tunnel.accepted);
});

test.serial('Agent.request - throws a refusal with what the person may do about it', async (t) => {
  const rig = await AgentRig.start(t);
  rig.answer = () => ({
    type: 'refusal',
    code: 'ERR_POSTURE_UNHEALTHY',
    message: 'disk encryption is off',
    fix: 'turn on LUKS',
    ref: 'dec_1',
  });
  const agent = await rig.agent(t);
  const error = await t.throwsAsync(agent.request({ type: 'apps' }));
  t.like(error, {
    code: 'ERR_POSTURE_UNHEALTHY',
    message: 'disk encryption is off',
    hint: 'turn on LUKS',
    ref: 'dec_1',
  });
});

test.serial('Agent.request - refuses an answer of another kind', async (t) => {
  const rig = await AgentRig.start(t);
  rig.answer = () => ({ type: 'done' });
  const agent = await rig.agent(t);
  await t.throwsAsync(agent.request({ type: 'status' }), { code: 'ERR_MESSAGE_UNEXPECTED' });
});

test.serial(
  'Agent - hands renewals to the tunnel they are for, from its own connector alone',
  async (t) => {
    const { rig, tunnel, grant } = await openTunnel(t);
    const firstMs = tunnel.untilMs;
    const verified = Promise.withResolvers<undefined>();
    tunnel.watcher = {
      onVerified: () => {
        verified.resolve(undefined);
      },
    };
    rig.push(
      rig.leases([[grant.tunnel, [1, 9], firstMs + 90_000]], { connector: newId('connector') }),
    );
    rig.push(rig.leases([[newId('tunnel'), [1, 9], firstMs + 80_000]]));
    rig.push(rig.leases([[grant.tunnel, [1, 2], firstMs + 10_000]]));
    await verified.promise;
    t.is(tunnel.untilMs, firstMs + 10_000);
  },
);

test.serial(
  'Agent - leaves a control plane that says what its keys do not bear out, and keeps its tunnels',
  async (t) => {
    const { rig, agent, tunnel, grant } = await openTunnel(t);
    const { statement } = rig.leases([]) as { statement: string };
    const untilMs = tunnel.untilMs + 90_000;
    const forged = rig.leases([[grant.tunnel, [1, 8], untilMs]]) as { statement: string };
    for (const bad of [statement.slice(0, -4), forged.statement.slice(0, -4)]) {
      const before = rig.hellos.length;
      rig.push({ type: 'leases', statement: `${bad}AAAA` });
      await rig.until(() => (rig.hellos.length > before ? true : undefined));
      rig.answer = () => ({ type: 'done' });
      await agent.request({ type: 'sign_out' }); // the channel is open again
    }
    t.true(tunnel.isOpen);
    t.is(tunnel.untilMs, untilMs - 90_000);
    t.deepEqual(rig.hellos.at(-1)?.['tunnels'], [grant.tunnel]);
  },
);

test.serial(
  'Agent - ends a tunnel that a log entry names after its grant, with the reason, at the connector too',
  async (t) => {
    const { rig, tunnel, grant } = await openTunnel(t);
    rig.push(
      rig.log([
        {
          position: 9,
          action: 'revoke',
          subject: { kind: 'user', id: grant.user },
          reason: 'long_ago',
        },
        {
          position: 11,
          action: 'revoke',
          subject: { kind: 'user', id: newId('user') },
          reason: 'somebody_else',
        },
        {
          position: 12,
          action: 'revoke',
          subject: { kind: 'session', id: grant.session },
          reason: 'left_company',
        },
      ]),
    );
    const { code, reason } = await tunnel.closed;
    t.deepEqual([code, reason], ['ERR_TUNNEL_REVOKED', 'left_company']);
    t.deepEqual(await rig.paths[0]?.ended, { code: 'ERR_TUNNEL_REVOKED', reason: 'left_company' });
  },
);

test.serial(
  'Agent - leaves a tunnel alone whose subjects the log does not name after its grant',
  async (t) => {
    const { rig, tunnel, grant } = await openTunnel(t);
    rig.push(
      rig.log([
        {
          position: 9,
          action: 'revoke',
          subject: { kind: 'user', id: grant.user },
          reason: 'long_ago',
        },
        {
          position: 11,
          action: 'revoke',
          subject: { kind: 'user', id: newId('user') },
          reason: 'somebody_else',
        },
      ]),
    );
    const verified = Promise.withResolvers<undefined>();
    tunnel.watcher = {
      onVerified: () => {
        verified.resolve(undefined);
      },
    };
    rig.push(rig.leases([[grant.tunnel, [1, 2], grant.untilMs + 1]])); // comes behind the log
    await verified.promise;
    t.true(tunnel.isOpen);
  },
);

test.serial('Agent - ends a tunnel that the control plane ended', async (t) => {
  const { rig, tunnel, grant } = await openTunnel(t);
  rig.push({
    type: 'tunnel_ended',
    tunnel: newId('tunnel'),
    code: 'ERR_TUNNEL_REVOKED',
    reason: 'another',
  });
  rig.push({
    type: 'tunnel_ended',
    tunnel: grant.tunnel,
    code: 'ERR_TUNNEL_REVOKED',
    reason: 'policy_changed',
  });
  t.like(await tunnel.closed, { code: 'ERR_TUNNEL_REVOKED', reason: 'policy_changed' });
});

test.serial(
  'Agent - keeps its tunnels when the control channel is lost, and names them when it has dialled again',
  async (t) => {
    const { rig, agent, tunnel, grant } = await openTunnel(t);
    rig.dropChannels();
    await rig.until(() => (rig.hellos.length > 1 ? true : undefined));
    t.deepEqual(rig.hellos[1]?.['tunnels'], [grant.tunnel]);
    t.true(tunnel.isOpen);
    rig.answer = () => ({ type: 'apps', apps: [] });
    t.deepEqual((await agent.request({ type: 'apps' })).apps, []);
  },
);

test.serial('Agent - ends its tunnels when this device was revoked', async (t) => {
  const { rig, agent, tunnel } = await openTunnel(t);
  const code = 'ERR_IDENTITY_REVOKED';
  rig.closeChannels(errorRow(code).closeCode, code);
  t.is((await agent.ended)?.code, code);
  t.is((await tunnel.closed).code, code);
});

test.serial(
  'Agent.stop - closes its tunnels at both ends, hands unused permission back and may be called again',
  async (t) => {
    const { rig, agent, tunnel, grant } = await openTunnel(t);
    const unused = rig.grant();
    rig.answer = ({ type }) => (type === 'grant' ? rig.permit(unused) : undefined);
    await agent.requestPermit('wiki');
    await agent.stop();
    await agent.stop();
    t.is((await tunnel.closed).code, 'ERR_TUNNEL_CLOSED');
    t.deepEqual(await rig.paths[0]?.ended, { code: 'ERR_TUNNEL_CLOSED', reason: 'agent_stopped' });
    await rig.until(() => (rig.received.length === 2 ? true : undefined));
    t.deepEqual(rig.received, [
      { type: 'tunnel_closed', tunnel: grant.tunnel, reason: 'agent_stopped' },
      { type: 'tunnel_closed', tunnel: unused.tunnel, reason: 'not_opened' },
    ]);
    t.is(await agent.ended, undefined);
  },
);

test.serial('Agent.start - fails when the relay cannot be reached', async (t) => {
  const rig = await AgentRig.start(t);
  await rig.control.stop();
  await t.throwsAsync(rig.agent(t), { code: 'ERR_RELAY_UNREACHABLE' });
});
