import { request } from 'node:https';
import { connect, TLSSocket } from 'node:tls';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import anyTest, { type TestFn } from 'ava';
import { fetchBundle } from '../../../../protocol/host/enrolment.ts';
import { TestCa } from '../../../support/pki.ts';
import { pushToken, SignalRig } from './signal-rig.ts';

const ca = new TestCa('a public CA');

interface Context {
  all: SignalRig;
  files: SignalRig;
  replace: (certificatePem: string) => void;
}
const test = anyTest as TestFn<Context>;

test.before('a control plane with a certificate of a public CA', async (t) => {
  const { certificatePem, keyPem } = ca.issue();
  const files = new SignalRig();
  const tls = {
    certFile: files.file('cert.pem', certificatePem),
    keyFile: files.file('key.pem', keyPem),
  };
  t.context.replace = (pem) => files.file('cert.pem', pem);
  t.context.all = await SignalRig.start({}, { tls });
  t.context.files = files;
  await t.context.all.publish();
});

test.after.always('stop', async (t) => {
  await t.context.all.stop();
  await t.context.files.stop();
});

/** Asks as an HTTPS client does that trusts that CA and no other. */
function ask(url: string, path: string, headers = {}): Promise<{ status: number; serial: string }> {
  return new Promise((resolve, reject) => {
    const options = { method: 'POST', ca: [ca.certificatePem], agent: false, headers };
    const call = request(url + path, options, (response) => {
      const { socket } = response;
      const serial = socket instanceof TLSSocket ? socket.getPeerCertificate().serialNumber : '';
      response.resume().once('end', () => {
        resolve({ status: response.statusCode ?? 0, serial });
      });
    });
    call.on('error', reject);
    call.end('rubbish');
  });
}

test('tls - a transmitter that trusts public CAs alone reaches the push endpoint, with or without ALPN', async (t) => {
  const { all } = t.context;
  const stranger = await ask(all.rig.url, '/v1/signals/idp');
  t.is(stranger.status, 401);
  const known = await ask(all.rig.url, '/v1/signals/idp', {
    authorization: `Bearer ${pushToken}`,
    'content-type': 'application/secevent+jwt',
  });
  t.is(known.status, 400); // heard, and no token
  const port = Number(new URL(all.rig.url).port);
  const socket = connect({ host: '127.0.0.1', port, ca: [ca.certificatePem] });
  await once(socket, 'secureConnect');
  t.true(socket.authorized);
  t.is(socket.alpnProtocol, false);
  socket.destroy();
});

test('tls - agents and those that enrol see our own CA as before', async (t) => {
  const { all } = t.context;
  const device = await all.rig.device('alice');
  const status = await device.channel.request({ type: 'status' });
  t.is(status.type, 'status');
});

test('tls - a relay of another deployment is told as that, whatever its pages show', async (t) => {
  const other = Buffer.alloc(32, 7).toString('base64url');
  await t.throwsAsync(fetchBundle(t.context.all.rig.url, other), {
    code: 'ERR_STATEMENT_REFUSED',
  } as never);
});

test('tls - a renewed certificate is shown to new connections, without a restart', async (t) => {
  t.timeout(60_000); // on a busy machine
  const { all, replace } = t.context;
  const before = await ask(all.rig.url, '/v1/signals/idp');
  replace(ca.issue().certificatePem);
  let after = before;
  while (after.serial === before.serial) {
    await delay(250); // files are looked at every few seconds
    after = await ask(all.rig.url, '/v1/signals/idp');
  }
  t.is(after.status, 401);
});
