/**
 * What a connector does when nobody tells it anything any more and everybody else is hostile: the relay keeps every path
 * open and pushes neither entries nor renewals, and the clients go on sending past the end of their leases.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { newId } from '../../protocol/index.ts';
import { startConnector } from '../connector/running-connector.ts';
import type { FakeClient, FakeStream } from '../connector/fake-relay.ts';

export interface AloneFigures {
  readonly tunnels: number;
  /** Of those, how many had delivered their last byte by lease and five seconds. */
  readonly cut: number;
  /** Milliseconds from the end of each tunnel's lease to its last byte at the app; below zero before it. */
  readonly afterLeaseMs: readonly number[];
}

const graceMs = 5_000;
/** Fewer than a connector keeps for one device. */
const tunnelsPerDevice = 200;

/** Opens tunnels whose leases all end `leaseMs` after the last was opened, and carries a byte in each every `everyMs`. */
export async function connectorAlone(
  tunnels: number,
  { leaseMs, everyMs }: { readonly leaseMs: number; readonly everyMs: number },
): Promise<AloneFigures> {
  const teardown: (() => Promise<void> | void)[] = [];
  const { relay, app } = await startConnector({
    teardown: (stop) => {
      teardown.push(stop);
    },
  });
  relay.slots = 8;
  const lastAtMs: number[] = [];
  const opened: { readonly client: FakeClient; readonly stream: FakeStream }[] = [];
  try {
    let device = newId('device');
    for (let at = 0; at < tunnels; at++) {
      if (at % tunnelsPerDevice === 0) device = newId('device');
      const nowMs = relay.nowMs();
      const times = { untilMs: nowMs + 600_000, expiresAtMs: nowMs + 60_000 };
      const client = await relay.tunnel({ device, ...times });
      const arriving = app.next();
      const stream = client.open(Buffer.from('x'));
      (await arriving).on('data', () => {
        lastAtMs[at] = relay.nowMs();
      });
      opened.push({ client, stream });
    }
    const untilMs = relay.nowMs() + leaseMs;
    for (let at = 0; at < tunnels; at += 100) {
      relay.pushLeases(
        opened.slice(at, at + 100).map(({ client }) => [client.grant.tunnel, [1, 2], untilMs]),
      );
    }
    const sending = setInterval(() => {
      for (const { stream } of opened)
        if (!stream.stream.isOver) stream.stream.write(Buffer.from('.'));
    }, everyMs);
    await delay(leaseMs + 2 * graceMs);
    clearInterval(sending);
    const afterLeaseMs = lastAtMs.map((atMs) => atMs - untilMs).sort((a, b) => a - b);
    return { tunnels, cut: afterLeaseMs.filter((ms) => ms <= graceMs).length, afterLeaseMs };
  } finally {
    for (const stop of teardown) await stop();
  }
}
