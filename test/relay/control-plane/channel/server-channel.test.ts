import { randomBytes } from 'node:crypto';
import test from 'ava';
import {
  controlProtocol,
  decodeMessage,
  encodeMessage,
  fromDevice,
  toDevice,
  type FromDevice,
  type ToDevice,
} from '../../../../protocol/index.ts';
import { dialWebSocket } from '../../../../protocol/host/index.ts';
import { Rig } from '../service/rig.ts';

test('ServerChannel - time and requests may follow hello at once, and are answered in order behind the welcome', async (t) => {
  const rig = await Rig.start();
  t.teardown(() => rig.stop());
  const { identity } = await rig.device('alice');
  const ws = await dialWebSocket({
    url: rig.url,
    alpn: controlProtocol,
    serverRole: 'control-plane',
    identity,
    path: '/v1/channel',
  });
  t.teardown(() => {
    ws.terminate();
  });
  const sent: FromDevice[] = [
    {
      type: 'hello',
      versions: { min: 1, max: 1 },
      software: 'test',
      bundleVersion: 1,
      tunnels: [],
    },
    { type: 'time', nonce: randomBytes(16).toString('base64url') },
    { type: 'status', id: 1 },
    { type: 'apps', id: 2 },
  ];
  const answers = new Promise<ToDevice[]>((resolve, reject) => {
    const got: ToDevice[] = [];
    ws.on('message', (data: Buffer) => {
      const message = decodeMessage(toDevice, data);
      if (message.type !== 'log') got.push(message);
      if (got.length === sent.length) resolve(got);
    });
    ws.on('close', (code, text) => {
      reject(new Error(`${String(code)} ${text.toString()}`));
    });
  });
  for (const message of sent) ws.send(encodeMessage(fromDevice, message));
  t.deepEqual(
    (await answers).map(({ type }) => type),
    ['welcome', 'time', 'status', 'apps'],
  );
});
