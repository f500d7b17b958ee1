import test from 'ava';
import { PathTurnover, type PathInUse } from '../../../client/agent/path-turnover.ts';

interface Given {
  stuckMs?: number;
  isResumable?: boolean;
  frameCount?: number;
  pathBytes?: number;
}

function inUse({
  stuckMs = 0,
  isResumable = true,
  frameCount = 1,
  pathBytes = 0,
}: Given = {}): PathInUse {
  return {
    endpoint: { stuckMs: () => stuckMs, roundTripMs: 20, isResumable, frameCount },
    pathBytes,
  };
}

const punctual = { overdueMs: 0 };
const late = { overdueMs: 5_000 };

function turnover({ isDraining = false } = {}) {
  const time = { nowMs: 0 };
  const rekey = { afterMs: 60_000, afterBytes: 1_000 };
  return { time, path: new PathTurnover({ isDraining, rekey, nowMs: () => time.nowMs }) };
}

test('PathTurnover - wants new keys by time or bytes, once something was sent under the old ones', (t) => {
  const { time, path } = turnover();
  t.is(path.due(inUse(), punctual), undefined);
  t.is(path.due(inUse({ pathBytes: 1_000 }), punctual), 'rekey');
  time.nowMs = 60_000;
  t.is(path.due(inUse(), punctual), 'rekey');
  t.is(path.due(inUse({ frameCount: 0 }), punctual), undefined, 'nothing was sent');
  path.noteReplaced(7, false);
  t.is(path.due(inUse({ frameCount: 8 }), punctual), undefined, 'a new path');
  time.nowMs = 120_000;
  t.is(path.due(inUse({ frameCount: 7 }), punctual), undefined, 'nothing was sent on this one');
  t.is(path.due(inUse({ frameCount: 8 }), punctual), 'rekey');
});

test('PathTurnover - leaves a relay that drains: at once on the first path, else in a moment, until it is left', (t) => {
  t.is(turnover({ isDraining: true }).path.due(inUse(), punctual), 'leave_relay');
  const { time, path } = turnover();
  path.noteDraining();
  time.nowMs = 1_000;
  t.is(path.due(inUse(), punctual), 'leave_relay');
  path.noteReplaced(1, false);
  t.is(path.due(inUse(), punctual), undefined);
  path.noteReplaced(1, true);
  time.nowMs = 4_000;
  t.is(path.due(inUse(), punctual), 'leave_relay');
});

test('PathTurnover - after a move that failed waits 5 to 10 s with the next', (t) => {
  const { time, path } = turnover({ isDraining: true });
  path.noteFailed();
  time.nowMs = 4_999;
  t.is(path.due(inUse(), punctual), undefined);
  time.nowMs = 10_000;
  t.is(path.due(inUse(), punctual), 'leave_relay');
});

test('PathTurnover - gives up a congested path, also while no move is to be tried; moves no tunnel of one path', (t) => {
  const { time, path } = turnover({ isDraining: true });
  t.is(path.due(inUse({ isResumable: false }), punctual), undefined);
  time.nowMs = 20_000;
  path.noteFailed();
  t.is(path.due(inUse({ stuckMs: 10_000 }), late), 'give_up');
  t.is(path.due(inUse({ stuckMs: 10_000 }), late), undefined, 'that is rare');
});
