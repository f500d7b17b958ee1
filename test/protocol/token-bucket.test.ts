import test from 'ava';
import { TokenBucket } from '../../protocol/token-bucket.ts';

test('TokenBucket - allows the burst, then the steady rate, and never more than the burst', (t) => {
  const bucket = new TokenBucket(3, 2);
  t.deepEqual(
    [0, 0, 0, 0].map((nowMs) => bucket.take(nowMs)),
    [true, true, true, false],
  );
  t.false(bucket.take(499));
  t.true(bucket.take(500));
  t.false(bucket.take(999));
  t.deepEqual(
    [1e6, 1e6, 1e6, 1e6].map((nowMs) => bucket.take(nowMs)),
    [true, true, true, false],
  );
});

test('TokenBucket - gains nothing when time seems to go back', (t) => {
  const bucket = new TokenBucket(1, 1);
  t.true(bucket.take(1_000));
  t.false(bucket.take(0));
  t.false(bucket.take(1_500));
});
