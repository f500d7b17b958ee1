import { generateKeyPairSync } from 'node:crypto';
import test from 'ava';
import {
  decodeMessage,
  encodeMessage,
  leaseBatchSchema,
  logBatchSchema,
  newId,
  rawPublicKey,
  signingKey,
  signStatement,
  toConnector,
  toDevice,
  toRelay,
  verifyingKey,
  verifyStatement,
  type LogBatch,
  type RevocationEntry,
} from '../../../../protocol/index.ts';
import { maxLeaseEntries, maxLogEntries } from '../../../../relay/control-plane/limits.ts';
import { LogFeed } from '../../../../relay/control-plane/live/log-feed.ts';
import { Peers } from '../../../../relay/control-plane/live/peers.ts';

const { privateKey } = generateKeyPairSync('ed25519');
const grantKey = signingKey(privateKey);
const keys = [verifyingKey(rawPublicKey(privateKey))];
const highest = Number.MAX_SAFE_INTEGER;

/** Entries as long as any may be: the longest reason, subject, action and position. */
function longestEntries(count: number): RevocationEntry[] {
  return Array.from({ length: count }, (_, i) => ({
    position: highest - count + i,
    action: 'suspend',
    subject: { kind: 'connector', id: newId('connector') },
    reason: 'r'.repeat(64),
  }));
}

/** A peer that takes every message as the wire brings it. */
function newPeer() {
  const batches: LogBatch[] = [];
  const peer = {
    id: newId('connector'),
    toldTo: 0,
    send: (message: Parameters<Parameters<LogFeed['tellHead']>[0]['send']>[0]) => {
      for (const schema of [toConnector, toDevice, toRelay]) {
        decodeMessage(schema, encodeMessage(schema, message));
      }
      batches.push(verifyStatement('log', logBatchSchema, message.statement, keys));
    },
  };
  return { peer, batches };
}

test('LogFeed - whole batches of the longest entries fit into a message', (t) => {
  const position = highest - 1;
  const feed = new LogFeed({
    store: undefined as never, // nothing is read
    revocations: undefined as never,
    clock: { nowMs: () => 0 },
    peers: new Peers(),
    grantKey,
    head: { incarnation: highest, position },
  });
  const { peer, batches } = newPeer();
  const entries = longestEntries(2 * maxLogEntries + 1);
  feed.catchUp(peer, entries);
  t.deepEqual(
    batches.map((batch) => batch.entries.length),
    [maxLogEntries, maxLogEntries, 1],
  );
  t.deepEqual(
    batches.flatMap((batch) => batch.entries),
    entries,
  );
  t.deepEqual(
    batches.map((batch) => batch.completeTo),
    [entries[maxLogEntries - 1]?.position, entries[2 * maxLogEntries - 1]?.position, position],
  );
  t.is(peer.toldTo, position);
});

test('LogFeed - a heartbeat goes to connectors and data planes, and to no agent', (t) => {
  const peers = new Peers();
  const head = { incarnation: 1, position: 7 };
  const feed = new LogFeed({
    store: { db: undefined } as never, // nothing is read
    revocations: { head: () => Promise.resolve(head), since: () => Promise.resolve([]) },
    clock: { nowMs: () => 0 },
    peers,
    grantKey,
    head,
  });
  const [connector, relay, device] = [newPeer(), newPeer(), newPeer()];
  peers.connectors.set(connector.peer.id, connector.peer as never);
  peers.relays.set(relay.peer.id, relay.peer as never);
  peers.addDevice(device.peer as never);
  feed.beat();
  t.deepEqual(
    [connector, relay, device].map(({ batches }) => batches.map(({ completeTo }) => completeTo)),
    [[7], [7], []],
  );
});

test('leases - a whole batch of the longest renewals fits into a message', (t) => {
  const entries = Array.from(
    { length: maxLeaseEntries },
    () => [newId('tunnel'), [highest, highest], highest] as [never, [number, number], number],
  );
  const batch = { connector: newId('connector'), entries };
  const statement = signStatement('lease', leaseBatchSchema, batch, grantKey);
  for (const schema of [toConnector, toDevice, toRelay]) {
    t.notThrows(() => decodeMessage(schema, encodeMessage(schema, { type: 'leases', statement })));
  }
});
