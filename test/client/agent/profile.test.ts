import test from 'ava';
import { stateHome } from '../../../client/agent/profile.ts';

test('stateHome - prefers ZTNA_HOME, then XDG_STATE_HOME, then the place that is usual', (t) => {
  const both = { ZTNA_HOME: '/srv/ztna', XDG_STATE_HOME: '/home/a/.state' };
  t.is(stateHome(both, 'linux', '/home/a'), '/srv/ztna');
  t.is(stateHome({ XDG_STATE_HOME: '/home/a/.state' }, 'linux', '/home/a'), '/home/a/.state/ztna');
  t.is(stateHome({}, 'linux', '/home/a'), '/home/a/.local/state/ztna');
  t.is(stateHome({}, 'darwin', '/Users/a'), '/Users/a/Library/Application Support/ztna');
});

test('stateHome - takes an empty or relative setting for none', (t) => {
  t.is(
    stateHome({ ZTNA_HOME: '', XDG_STATE_HOME: 'state' }, 'linux', '/home/a'),
    '/home/a/.local/state/ztna',
  );
});
