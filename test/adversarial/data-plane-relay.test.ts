import { once } from 'node:events';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import test from 'ava';
import {
  bundlePath,
  dataProtocol,
  enrolmentProtocol,
  forwardProtocol,
  fromCloseFrame,
  grantHeader,
  instanceHeader,
  leaseBatchSchema,
  logBatchSchema,
  newId,
  relayListSchema,
  signingKey,
  signStatement,
  slotPath,
  tunnelPath,
  verifyRelayList,
  verifyStatement,
} from '../../protocol/index.ts';
import {
  dialTls,
  dialWebSocket,
  loadIdentity,
  renewCertificate,
  type Identity,
} from '../../protocol/host/index.ts';
import { Deployment } from '../support/deployment.ts';
import { addDataPlane } from '../support/relays.ts';

/** A deployment with a data plane alone, which an attacker has taken over: all of its keys are the attacker's. */
let deployment: Deployment;
let stolen: Identity;

test.before(async (t) => {
  t.timeout(120_000);
  deployment = await Deployment.start({ apps: [{ name: 'echo', target: 'tcp://127.0.0.1:9' }] });
  const relay = await addDataPlane(deployment, 'b');
  await relay.program.stop();
  const identity = await loadIdentity(join(relay.dir, 'data-plane'));
  if (!identity) throw new Error('it holds no identity');
  stolen = identity;
});
test.after.always(() => deployment.stop());

/** Hands a connection for the control plane on to the full relay, as whoever holds `identity`. */
async function forwardAs(identity: Identity, url: string): Promise<TLSSocket> {
  const socket = await dialTls({
    url,
    alpn: forwardProtocol,
    identity,
    trust: { authorities: identity.bundle.authorities, role: 'data-plane' },
  });
  socket.write('PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n');
  return socket;
}

/** What the control plane answers through it, or undefined when the connection was cut. */
async function askThrough(outer: TLSSocket): Promise<string | undefined> {
  const inner = connect({
    socket: outer,
    ALPNProtocols: [enrolmentProtocol],
    rejectUnauthorized: false, // what matters is who is at the other end at all
  });
  let text = '';
  inner.on('data', (chunk: Buffer) => (text += chunk.toString()));
  inner.on('error', () => undefined);
  inner.write(`GET ${bundlePath} HTTP/1.1\r\nhost: relay\r\n\r\n`);
  await new Promise((resolve) => {
    inner.once('close', resolve);
    outer.once('close', resolve);
  });
  return text === '' ? undefined : text;
}

test.serial('data plane taken over - it can sign nothing that anyone believes', (t) => {
  const key = signingKey(stolen.signingKey);
  const { bundle } = stolen;
  const list = signStatement('relays', relayListSchema, { version: 99, relays: [] }, key);
  const batch = { audience: stolen.id, incarnation: 1, entries: [], completeTo: 9 };
  const log = signStatement('log', logBatchSchema, batch, key);
  const leases = { connector: newId('connector'), entries: [] };
  const lease = signStatement('lease', leaseBatchSchema, leases, key);
  const refused = { code: 'ERR_STATEMENT_REFUSED' };
  t.throws(() => verifyRelayList(list, bundle), refused);
  t.throws(() => verifyStatement('log', logBatchSchema, log, bundle.grantKeys), refused);
  t.throws(() => verifyStatement('lease', leaseBatchSchema, lease, bundle.grantKeys), refused);
});

test.serial(
  'data plane taken over - its certificate opens neither a tunnel nor a slot elsewhere, and is renewed for its own name alone',
  async (t) => {
    const dial = { url: deployment.url, alpn: dataProtocol, serverRole: 'data-plane' } as const;
    for (const [path, headers] of [
      [tunnelPath, { [grantHeader]: 'grant.a.b.c' }],
      [slotPath, { [instanceHeader]: newId('instance') }],
    ] as const) {
      const ws = await dialWebSocket({ ...dial, identity: stolen, path, headers });
      const [code, text] = (await once(ws, 'close')) as [number, Buffer];
      t.is(fromCloseFrame(code, text.toString()).code, 'ERR_IDENTITY_ROLE');
    }
    const other = { ...stolen, id: newId('relay') };
    await t.throwsAsync(renewCertificate(other), { code: 'ERR_STATEMENT_REFUSED' });
    t.is((await renewCertificate(stolen)).id, stolen.id);
  },
);

test.serial(
  'control plane behind another relay - answers what a listed relay hands on, and nothing from anyone else',
  async (t) => {
    const { url } = deployment;
    t.regex((await askThrough(await forwardAs(stolen, url))) ?? '', /^HTTP\/1\.1 200 /);

    const connector = await loadIdentity(deployment.connectorDir);
    if (!connector) throw new Error('no connector');
    t.is(await askThrough(await forwardAs(connector, url)), undefined);

    await deployment.admin('relay', 'remove', 'b');
    t.is(await askThrough(await forwardAs(stolen, url)), undefined);
    await t.throwsAsync(renewCertificate(stolen), { code: 'ERR_STATEMENT_REFUSED' });
  },
);
