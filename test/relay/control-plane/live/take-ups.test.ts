import test from 'ava';
import { newId } from '../../../../protocol/index.ts';
import { TakeUps } from '../../../../relay/control-plane/live/take-ups.ts';

function waitFor(takeUps: TakeUps, tunnels: Parameters<TakeUps['whenNoted']>[0]) {
  const heard = { isDone: false };
  const leave = takeUps.whenNoted(tunnels, () => {
    heard.isDone = true;
  });
  return { heard, leave };
}

test('take-ups - whoever waits hears of it once all of its tunnels are noted', (t) => {
  const takeUps = new TakeUps();
  const [a, b, other] = [newId('tunnel'), newId('tunnel'), newId('tunnel')];
  const { heard } = waitFor(takeUps, [a, b, a]);
  takeUps.note(a);
  takeUps.note(a);
  takeUps.note(other);
  t.false(heard.isDone);
  takeUps.note(b);
  t.true(heard.isDone);
});

test('take-ups - with no tunnels there is nothing to wait for, and whoever left hears nothing', (t) => {
  const takeUps = new TakeUps();
  t.true(waitFor(takeUps, []).heard.isDone);
  const tunnel = newId('tunnel');
  const gone = waitFor(takeUps, [tunnel]);
  const other = waitFor(takeUps, [tunnel]);
  gone.leave();
  takeUps.note(tunnel);
  t.false(gone.heard.isDone);
  t.true(other.heard.isDone);
});
