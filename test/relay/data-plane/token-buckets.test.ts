import test from 'ava';
import { TokenBuckets } from '../../../relay/data-plane/token-buckets.ts';

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
