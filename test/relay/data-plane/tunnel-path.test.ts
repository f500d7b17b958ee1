import { randomBytes } from 'node:crypto';
import test from 'ava';
import { RelayRig } from '../../support/relay-rig.ts';

test('tunnel path - passes binary messages untouched, in order, both ways', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const { client, connector, grant } = await rig.tunnel();
  const up = [randomBytes(1), randomBytes(65_535), randomBytes(1_000), Buffer.alloc(0)];
  const down = [randomBytes(48), randomBytes(16_384), randomBytes(3)];
  for (const message of up) client.send(message);
  for (const message of down) connector.send(message);
  await connector.until(() => connector.binary.length === up.length);
  await client.until(() => client.binary.length === down.length);
  t.deepEqual(connector.binary, up);
  t.deepEqual(client.binary, down);

  client.ws.close(1000);
  t.is(await connector.closeCode(), 'ERR_TUNNEL_CLOSED');
  const end = await rig.control.message('tunnel_closed');
  t.like(end, {
    tunnel: grant.tunnel,
    reason: 'client_closed',
    bytesUp: 66_536,
    bytesDown: 16_435,
  });
});
