import test from 'ava';
import { TokenBucket, TokenBuckets } from '../../../relay/data-plane/token-bucket.ts';

test('TokenBucket - allows the burst, then the steady rate, and never more than the burst', (t) => {
  const bucket = new TokenBucket(3, 2, 0);
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
  const bucket = new TokenBucket(1, 1, 1_000);
  t.true(bucket.take(1_000));
  t.false(bucket.take(0));
  t.false(bucket.take(1_500));
});

test('TokenBuckets - does not count who proved to be someone', (t) => {
  const buckets = new TokenBuckets(1, 1, 10);
  for (let i = 0; i < 5; i++) {
    t.true(buckets.take('192.0.2.7', 0));
    buckets.giveBack('192.0.2.7');
  }
  t.true(buckets.take('192.0.2.7', 0));
  t.false(buckets.take('192.0.2.7', 0));
});

test('TokenBuckets - refuses new keys rather than forget one that is in use', (t) => {
  const buckets = new TokenBuckets(2, 1, 2);
  t.true(buckets.take('a', 0));
  t.true(buckets.take('b', 0));
  t.false(buckets.take('c', 0));
  t.true(buckets.take('c', 10_000));
  t.is(buckets.size, 1);
});
