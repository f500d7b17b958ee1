import test from 'ava';
import { LossReport } from '../../../client/agent/loss-report.ts';

function rig() {
  const told: string[] = [];
  const state = { isDetached: true };
  const report = new LossReport({
    watcher: () => ({
      onDetached: (reason, untilMs) => told.push(`${reason} until ${untilMs}`),
      onSuspended: ({ reason, fix }, untilMs) => told.push(`${reason}, ${fix} until ${untilMs}`),
    }),
    isDetached: () => state.isDetached,
    holdEndMs: () => 5,
  });
  return { told, state, report };
}

test('LossReport - tells each loss once, and says when its end is worth telling', (t) => {
  const { told, report } = rig();
  t.false(report.mended());
  report.lost('path_lost', false);
  report.tell();
  t.true(report.mended());
  t.false(report.mended());
  report.lost('lease_expired', false);
  t.deepEqual(told, ['path_lost until 5', 'lease_expired until 5']);
});

test('LossReport - tells nothing of an early loss that is mended, and hurries with it when asked to', (t) => {
  const { told, state, report } = rig();
  report.lost('path_lost', true);
  state.isDetached = false;
  report.tell();
  t.false(report.mended());
  state.isDetached = true;
  report.lost('path_dead', true);
  t.deepEqual(told, []);
  report.tell();
  t.deepEqual(told, ['path_dead until 5']);
});

test('LossReport - tells a suspension in place of a loss, and again only with news', (t) => {
  const { told, report } = rig();
  report.lost('disk_unencrypted', true);
  const suspension = { reason: 'disk_unencrypted', fix: 'encrypt it' };
  report.suspended(suspension, false);
  report.tell();
  report.suspended(suspension, false);
  report.suspended({ ...suspension, fix: 'turn it on' }, true);
  t.deepEqual(told, [
    'disk_unencrypted, encrypt it until 5',
    'disk_unencrypted, turn it on until 5',
  ]);
});
