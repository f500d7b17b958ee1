import { existsSync, readFileSync } from 'node:fs';
import test from 'ava';
import { limits } from '../../../relay/data-plane/limits.ts';
import { RelayRig, type DataEnd } from '../../support/relay-rig.ts';

const message = Buffer.alloc(65_535, 7);

/** Sends until nothing has moved for a while; answers how many bytes left this end. */
async function fill(end: DataEnd): Promise<number> {
  let sent = 0;
  let stalled = 0;
  while (stalled < 5 && sent < limits.highWaterBytes + 3 * kernelBufferBytes()) {
    const before = end.ws.bufferedAmount;
    if (before < 4 * message.length) {
      for (let i = 0; i < 16; i++) {
        end.ws.send(message);
        sent += message.length;
      }
      stalled = 0;
    } else stalled++;
    await new Promise((resolve) => setTimeout(resolve, 50));
    if (end.ws.bufferedAmount < before) stalled = 0;
  }
  return sent - end.ws.bufferedAmount;
}

for (const direction of ['up', 'down'] as const) {
  test(`backpressure - bounds what waits for an end that does not read, ${direction}`, async (t) => {
    const rig = await RelayRig.start();
    t.teardown(() => rig.stop());
    const { client, connector } = await rig.tunnel();
    const [from, to] = direction === 'up' ? [client, connector] : [connector, client];
    to.ws.pause();
    const taken = await fill(from);
    // The kernel's buffers of two connections, as far as it lets them grow, and what the relay may queue.
    t.true(taken < limits.highWaterBytes + 2 * kernelBufferBytes(), `${taken}`);
    t.true(taken > limits.lowWaterBytes);
    const other = await rig.tunnel();
    other.client.send(message);
    await other.connector.until(() => other.connector.bytes === message.length);

    // Nothing is lost: reading goes on where it stopped.
    const total = taken + from.ws.bufferedAmount;
    to.ws.resume();
    await to.until(() => to.bytes >= Math.floor(total / message.length) * message.length);
    t.true(to.binary.every((data) => data.equals(message)));
  });
}

test('backpressure - gives up an end that takes nothing for long, and tells the other', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const { client, connector, grant } = await rig.tunnel();
  connector.ws.pause();
  await fill(client);
  t.is(await client.closeCode(), 'ERR_TUNNEL_PATH_LOST');
  const end = await rig.control.message('tunnel_closed', (m) => m.tunnel === grant.tunnel);
  t.is(end.reason, 'connector_silent');
});

test('backpressure - text on a joined socket ends the path', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  for (const side of ['client', 'connector'] as const) {
    const tunnel = await rig.tunnel();
    tunnel[side].send('{}');
    t.is(await tunnel.client.closeCode(), 'ERR_MESSAGE_UNEXPECTED');
    t.is(await tunnel.connector.closeCode(), 'ERR_MESSAGE_UNEXPECTED');
  }
});

/** What this kernel may hold for one connection: its largest receive and send buffers. */
function kernelBufferBytes(): number {
  const largest = (name: string): number =>
    Number(readFileSync(`/proc/sys/net/ipv4/${name}`, 'utf8').trim().split(/\s+/)[2]);
  return existsSync('/proc/sys/net/ipv4/tcp_rmem')
    ? largest('tcp_rmem') + largest('tcp_wmem')
    : 12 * 1_048_576;
}
