import fc from 'fast-check';
import test from 'ava';
import { ByteQueue } from '../../protocol/byte-queue.ts';
import { Fifo } from '../../protocol/fifo.ts';
import { frameHeaderBytes, FrameType } from '../../protocol/frame.ts';
import { RecordWriter } from '../../protocol/record-writer.ts';

test('Fifo - behaves as an array does, whatever is done to it', (t) => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.constant('push' as const) },
    { weight: 4, arbitrary: fc.constant('shift' as const) },
    { weight: 2, arbitrary: fc.constant('pop' as const) },
    { weight: 1, arbitrary: fc.constant('drain' as const) },
    { weight: 1, arbitrary: fc.constant('clear' as const) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
      const queue = new Fifo<number>();
      const twin: number[] = [];
      for (const [at, what] of steps.entries()) {
        if (what === 'push') {
          queue.push(at);
          twin.push(at);
        } else if (what === 'clear') {
          queue.clear();
          twin.length = 0;
        } else if (what === 'drain') {
          while (queue.length > 0) t.is(queue.shift(), twin.shift());
        } else {
          t.is(queue[what](), twin[what]());
        }
        t.is(queue.length, twin.length);
        t.is(queue.peek(), twin[0]);
        const index = at % (twin.length + 1);
        t.is(queue.at(index), twin[index]);
      }
    }),
  );
});

/** Moves bytes into the payload of a frame; answers that. */
function moveOut(queue: ByteQueue, bytes: number): Buffer {
  const record = new RecordWriter();
  record.addHeader(FrameType.Data, bytes, 1, 1);
  queue.moveTo(record, bytes);
  return Buffer.concat(record.finish() ?? []).subarray(frameHeaderBytes);
}

test('ByteQueue - gives the bytes that went in, less what was cut off its end', (t) => {
  const step = fc.oneof(
    fc.record({ push: fc.integer({ min: 1, max: 9_000 }) }),
    fc.record({ move: fc.nat({ max: 12_000 }) }),
    fc.record({ keep: fc.nat({ max: 12_000 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const queue = new ByteQueue();
      let twin = Buffer.alloc(0);
      let next = 0;
      for (const what of steps) {
        if ('push' in what) {
          const chunk = Buffer.from(Array.from({ length: what.push }, () => next++ & 0xff));
          queue.push(chunk);
          twin = Buffer.concat([twin, chunk]);
        } else if ('move' in what) {
          const bytes = Math.min(what.move, twin.length);
          t.true(moveOut(queue, bytes).equals(twin.subarray(0, bytes)));
          twin = twin.subarray(bytes);
        } else {
          queue.truncate(what.keep);
          twin = twin.subarray(0, what.keep);
        }
        t.is(queue.lengthBytes, twin.length);
        t.is(queue.chunkCount === 0, twin.length === 0);
      }
    }),
  );
});
