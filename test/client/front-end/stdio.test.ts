import { PassThrough, Writable } from 'node:stream';
import test from 'ava';
import { carryStdio } from '../../../client/front-end/stdio.ts';
import type { StreamLog } from '../../support/tunnel-pair.ts';
import { TunnelPair } from '../../support/tunnel-pair.ts';

/** Standard input and output of a command whose stream's other end is `app`. */
function start(): {
  input: PassThrough;
  outcome: Promise<void>;
  app: () => StreamLog;
  written: () => string;
  isOutputEnded: () => boolean;
  output: Writable;
  settle: () => Promise<void>;
} {
  const pair = new TunnelPair();
  const input = new PassThrough();
  let text = '';
  let isEnded = false;
  const output = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      text += chunk.toString();
      done();
    },
  });
  const outcome = carryStdio(pair.client.open(), input, {
    stream: output,
    end: (onClosed) => {
      isEnded = true;
      output.end(onClosed);
    },
  });
  outcome.catch(() => undefined);
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 5; i++) {
      await new Promise(setImmediate);
      pair.settle();
    }
  };
  const app = (): StreamLog => {
    const served = pair.served[0];
    if (!served) throw new Error('no stream was opened');
    return served;
  };
  return { input, outcome, app, written: () => text, isOutputEnded: () => isEnded, output, settle };
}

test('carryStdio - carries both directions and ends when both have', async (t) => {
  const { input, outcome, app, written, isOutputEnded, settle } = start();
  input.write('question');
  await settle();
  t.is(app().bytes.toString(), 'question');
  app().stream.write(Buffer.from('answer'));
  app().stream.end();
  await settle();
  t.is(written(), 'answer');
  t.true(isOutputEnded(), 'the app’s end ends standard output');
  t.deepEqual(app().events, [], 'standard input is still open');
  input.end(' and more');
  await settle();
  t.is(app().bytes.toString(), 'question and more');
  t.deepEqual(app().events, ['end']);
  await t.notThrowsAsync(outcome);
});

test('carryStdio - goes on reading the app after the end of input', async (t) => {
  const { input, outcome, app, written, settle } = start();
  input.end();
  await settle();
  t.deepEqual(app().events, ['end']);
  app().stream.write(Buffer.from('late answer'));
  app().stream.end();
  await settle();
  await outcome;
  t.is(written(), 'late answer');
});

for (const [reset, code] of [
  ['refused', 'ERR_STREAM_REFUSED'],
  ['unreachable', 'ERR_STREAM_UNREACHABLE'],
  ['reset', 'ERR_STREAM_RESET'],
] as const) {
  test(`carryStdio - fails when the app’s end is “${reset}”, with what came before written`, async (t) => {
    const { outcome, app, written, isOutputEnded, settle } = start();
    await settle();
    app().stream.write(Buffer.from('partial'));
    await settle();
    app().stream.reset(reset);
    await settle();
    await t.throwsAsync(outcome, { code });
    t.is(written(), 'partial');
    t.false(isOutputEnded(), 'a reset is never shown as a clean end');
  });
}

test('carryStdio - resets the stream when standard output breaks', async (t) => {
  const { outcome, app, output, settle } = start();
  await settle();
  output.destroy(new Error('EPIPE'));
  await t.throwsAsync(outcome, { code: 'ERR_STREAM_RESET' });
  await settle();
  t.deepEqual(app().events, ['reset reset']);
});

test('carryStdio - stops reading input while the tunnel takes no more', async (t) => {
  const { input, app, settle } = start();
  await settle();
  const chunk = Buffer.alloc(65_536);
  let takenBytes = 0;
  while (input.writableLength < 1_048_576 && takenBytes < 64 * 1_048_576) {
    input.write(chunk);
    takenBytes += chunk.length;
    await new Promise(setImmediate); // the tunnel itself stands still
  }
  t.true(takenBytes < 4 * 1_048_576, 'memory stays bounded');
  await settle();
  app().stream.reset('reset');
});
