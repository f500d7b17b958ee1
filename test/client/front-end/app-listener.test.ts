import test from 'ava';
import { tellRefusals } from '../../../client/front-end/app-listener.ts';

test('tellRefusals - says why a connection did not come about, and each cause not too often', (t) => {
  const said: string[] = [];
  let nowMs = 0;
  const onReset = tellRefusals({ say: (line) => said.push(line) }, () => nowMs);
  const refused = 'app: the app refused the connection [ERR_STREAM_REFUSED]';
  const unreachable = 'app: the app could not be reached [ERR_STREAM_UNREACHABLE]';
  onReset('refused');
  onReset('refused');
  onReset('unreachable');
  t.deepEqual(said, [refused, unreachable]);
  nowMs = 60_000;
  onReset('refused');
  t.deepEqual(said, [refused, unreachable, refused]);
});

test('tellRefusals - leaves alone what the programs at both ends see by themselves', (t) => {
  const said: string[] = [];
  const onReset = tellRefusals({ say: (line) => said.push(line) });
  for (const code of ['reset', 'closed', 'overrun', 'internal'] as const) onReset(code);
  t.deepEqual(said, []);
});
