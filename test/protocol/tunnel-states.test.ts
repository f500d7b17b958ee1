import test from 'ava';
import {
  encodeClose,
  encodeCount,
  encodeFrame,
  encodeReset,
  FrameType,
} from '../../protocol/frame.ts';
import { newClient, newConnector, pullRecord, StreamLog } from '../support/tunnel-pair.ts';
import type { TunnelEndpoint } from '../../protocol/tunnel-endpoint.ts';

/*
 * Every frame type in every state of a tunnel's end and of a stream. The frames are made by hand: a peer of our own
 * would never send most of them.
 */

interface Scene {
  readonly endpoint: TunnelEndpoint;
  /** Numbered frames the peer has sent so far. */
  readonly numbered: number;
}

const accept = encodeFrame(FrameType.Accept, 0, 0);
const data = (stream: number, number: number, text = 'x') =>
  encodeFrame(FrameType.Data, stream, number, Buffer.from(text));
const open = (stream: number, number: number) => encodeFrame(FrameType.Open, stream, number);
const fin = (stream: number, number: number) => encodeFrame(FrameType.Fin, stream, number);
const reset = (stream: number, number: number) =>
  encodeFrame(FrameType.Reset, stream, number, encodeReset('reset'));
const ack = (number: number) => encodeFrame(FrameType.Ack, 0, number);

function drain(endpoint: TunnelEndpoint): void {
  while (pullRecord(endpoint, 0));
}

function client(...received: Buffer[]): TunnelEndpoint {
  const { endpoint } = newClient();
  for (const frame of received) endpoint.receive(frame, 0);
  drain(endpoint);
  return endpoint;
}

function clientWithStream(): TunnelEndpoint {
  const endpoint = client(accept);
  new StreamLog(endpoint.open());
  drain(endpoint);
  return endpoint;
}

/** Stream 1 in each of its states, at the connector. */
function connectorScene(
  act?: (log: StreamLog, endpoint: TunnelEndpoint) => void,
  ...later: Buffer[]
): Scene {
  const { endpoint, served } = newConnector();
  drain(endpoint);
  endpoint.receive(open(1, 1), 0);
  const log = served[0];
  if (log === undefined) throw new Error('no stream');
  act?.(log, endpoint);
  drain(endpoint);
  for (const frame of later) endpoint.receive(frame, 0);
  return { endpoint, numbered: 1 + later.filter(({ 0: type }) => (type ?? 0) <= 4).length };
}

const scenes: Readonly<Record<string, () => Scene>> = {
  'client, waiting': () => ({ endpoint: client(), numbered: 0 }),
  'client, accepted': () => ({ endpoint: client(accept), numbered: 0 }),
  'client, stream open': () => ({ endpoint: clientWithStream(), numbered: 0 }),
  'connector, no stream': () => ({ endpoint: newConnector().endpoint, numbered: 0 }),
  'connector, stream open': () => connectorScene(),
  'connector, peer ended': () => connectorScene(undefined, fin(1, 2)),
  'connector, we ended': () =>
    connectorScene((log) => {
      log.stream.end();
    }),
  'connector, both ended': () =>
    connectorScene(
      (log) => {
        log.stream.end();
      },
      fin(1, 2),
    ),
  'connector, both ended and acknowledged': () =>
    connectorScene(
      (log) => {
        log.stream.end();
      },
      fin(1, 2),
      ack(1),
    ),
  'connector, we reset': () =>
    connectorScene((log) => {
      log.stream.reset('refused');
    }),
  'connector, we reset and acknowledged': () =>
    connectorScene((log) => {
      log.stream.reset('refused');
    }, ack(1)),
  'connector, peer reset': () => connectorScene(undefined, reset(1, 2)),
  'connector, both reset': () =>
    connectorScene(
      (log) => {
        log.stream.reset('refused');
      },
      reset(1, 2),
    ),
  'connector, closed': () => {
    const { endpoint } = newConnector();
    endpoint.close('ERR_TUNNEL_CLOSED', 'test');
    drain(endpoint);
    return { endpoint, numbered: 0 };
  },
};

const frames: Readonly<Record<string, (n: number) => Buffer>> = {
  OPEN: (n) => open(1, n),
  'OPEN next': (n) => open(3, n),
  DATA: (n) => data(1, n),
  FIN: (n) => fin(1, n),
  RESET: (n) => reset(1, n),
  'ACK ahead': () => ack(1_000),
  CREDIT: () => encodeFrame(FrameType.Credit, 1, 0, encodeCount(70_000)),
  RESUME: () => encodeFrame(FrameType.Resume, 0, 0, Buffer.alloc(32)),
  RESUMED: () => encodeFrame(FrameType.Resumed, 0, 0, Buffer.alloc(8)),
  ACCEPT: () => accept,
  CLOSE: () =>
    encodeFrame(FrameType.Close, 0, 0, encodeClose({ code: 'ERR_INTERNAL', reason: 'x' })),
  PROBE: () => encodeFrame(FrameType.Probe, 0, 0, Buffer.alloc(8)),
  PROBE_REPLY: () => encodeFrame(FrameType.ProbeReply, 0, 0, Buffer.alloc(8)),
  // Of later versions than this tunnel's.
  HEARD: () => encodeFrame(FrameType.Heard, 0, 0, encodeCount(0)),
  PART: (n) => encodeFrame(FrameType.Part, 1, n, Buffer.from('x')),
};

/** What may come; everything else is ERR_FRAME_UNEXPECTED. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  'client, waiting': ['ACCEPT', 'CLOSE'],
  'client, accepted': ['CLOSE', 'PROBE'],
  'client, stream open': ['DATA', 'FIN', 'RESET', 'CREDIT', 'CLOSE', 'PROBE'],
  'connector, no stream': ['OPEN', 'OPEN next', 'CLOSE', 'PROBE'],
  'connector, stream open': ['OPEN next', 'DATA', 'FIN', 'RESET', 'CREDIT', 'CLOSE', 'PROBE'],
  'connector, peer ended': ['OPEN next', 'RESET', 'CREDIT', 'CLOSE', 'PROBE'],
  'connector, we ended': ['OPEN next', 'DATA', 'FIN', 'RESET', 'CREDIT', 'CLOSE', 'PROBE'],
  'connector, both ended': ['OPEN next', 'RESET', 'CREDIT', 'CLOSE', 'PROBE'],
  'connector, both ended and acknowledged': ['OPEN next', 'RESET', 'CLOSE', 'PROBE'],
  'connector, we reset': ['OPEN next', 'DATA', 'FIN', 'RESET', 'CREDIT', 'CLOSE', 'PROBE'],
  'connector, we reset and acknowledged': ['OPEN next', 'RESET', 'CLOSE', 'PROBE'],
  'connector, peer reset': ['OPEN next', 'RESET', 'CLOSE', 'PROBE'],
  'connector, both reset': ['OPEN next', 'RESET', 'CLOSE', 'PROBE'],
  'connector, closed': Object.keys(frames),
};

for (const [name, scene] of Object.entries(scenes)) {
  test(`receive - ${name}: takes what may come and refuses the rest`, (t) => {
    for (const [frameName, frame] of Object.entries(frames)) {
      const { endpoint, numbered } = scene();
      const receive = () => {
        endpoint.receive(frame(numbered + 1), 0);
      };
      if (allowed[name]?.includes(frameName)) t.notThrows(receive, frameName);
      else t.throws(receive, { code: 'ERR_FRAME_UNEXPECTED' }, frameName);
    }
  });
}

test('receive - refuses a frame number that is repeated or skipped', (t) => {
  for (const number of [1, 3, 2 ** 53 - 1]) {
    const { endpoint } = connectorScene();
    t.throws(
      () => {
        endpoint.receive(data(1, number), 0);
      },
      { code: 'ERR_FRAME_UNEXPECTED' },
    );
  }
});

test('receive - refuses stream ids that are even, repeated or descending', (t) => {
  for (const id of [2, 0xffff_fffe, 7, 5, 1]) {
    const { endpoint } = newConnector();
    endpoint.receive(open(7, 1), 0);
    t.throws(
      () => {
        endpoint.receive(open(id, 2), 0);
      },
      { code: 'ERR_FRAME_UNEXPECTED' },
      String(id),
    );
  }
  const { endpoint, served } = newConnector();
  endpoint.receive(open(7, 1), 0);
  endpoint.receive(open(0xffff_ffff, 2), 0);
  t.is(served.length, 2);
});

test('receive - refuses data for a stream that was never opened, below and above the last', (t) => {
  for (const id of [1, 5]) {
    const { endpoint } = newConnector();
    endpoint.receive(open(3, 1), 0);
    t.throws(
      () => {
        endpoint.receive(data(id, 2), 0);
      },
      { code: 'ERR_FRAME_UNEXPECTED' },
    );
  }
});

test('receive - refuses RESET of a stream that was never opened', (t) => {
  for (const id of [2, 3]) {
    const { endpoint } = connectorScene();
    t.throws(
      () => {
        endpoint.receive(reset(id, 2), 0);
      },
      { code: 'ERR_FRAME_UNEXPECTED' },
    );
  }
});

test('receive - a second probe before the first was answered is refused', (t) => {
  const { endpoint } = newConnector();
  const probe = encodeFrame(FrameType.Probe, 0, 0, Buffer.alloc(8));
  endpoint.receive(probe, 0);
  t.throws(
    () => {
      endpoint.receive(probe, 0);
    },
    { code: 'ERR_FRAME_UNEXPECTED' },
  );
});

test('receive - a limit that would fall changes nothing', (t) => {
  const { endpoint, served } = newConnector();
  endpoint.receive(open(1, 1), 0);
  drain(endpoint);
  served[0]?.stream.write(Buffer.alloc(100_000));
  const credit = (limit: number) => encodeFrame(FrameType.Credit, 1, 0, encodeCount(limit));
  endpoint.receive(credit(65_537), 0);
  endpoint.receive(credit(1), 0);
  let bytes = 0;
  for (let record = pullRecord(endpoint, 0); record; record = pullRecord(endpoint, 0)) {
    bytes += record.length;
  }
  t.true(bytes >= 65_537 && bytes < 65_600);
});

test('receive - what follows CLOSE in its record is ignored', (t) => {
  const { endpoint, events } = newClient();
  const close = encodeFrame(
    FrameType.Close,
    0,
    0,
    encodeClose({ code: 'ERR_INTERNAL', reason: 'x' }),
  );
  endpoint.receive(Buffer.concat([accept, close, accept, data(9, 9)]), 0);
  t.deepEqual(
    events.filter((event) => event !== 'output'),
    ['accept', 'close ERR_INTERNAL x'],
  );
  t.true(endpoint.isClosed);
  t.is(endpoint.pull(0), undefined);
});

test('receive - an error names the tunnel and its decision', (t) => {
  const { endpoint } = newConnector();
  const error = t.throws(
    () => {
      endpoint.receive(accept, 0);
    },
    { code: 'ERR_FRAME_UNEXPECTED' },
  );
  t.true(error.message.includes(endpoint.grant.tunnel));
  t.is((error as { ref?: string }).ref, endpoint.grant.decision);
});
