import test from 'ava';
import { StreamBudget } from '../../connector/stream-budget.ts';

test('take - gives so many places in all and to each device, and takes each back once', (t) => {
  const budget = new StreamBudget({ total: 3, perDevice: 2 });
  const first = budget.take('a');
  t.truthy(first && budget.take('a'));
  t.is(budget.take('a'), undefined);
  t.truthy(budget.take('b'));
  t.is(budget.take('c'), undefined);
  first?.();
  first?.();
  t.is(budget.total, 2);
  t.truthy(budget.take('c'));
  t.is(budget.take('a'), undefined);
});
