import test from 'ava';
import { childEnvironment, fillCommand } from '../../../client/front-end/child-command.ts';

const address = { host: '127.0.0.1', port: 4242 };

test('fillCommand - replaces host and port wherever they stand and keeps arguments apart', (t) => {
  t.deepEqual(
    fillCommand(
      ['psql', '-h', '{{host}}', 'x={{host}}:{{port}}/{{port}}', 'a b; {{other}}'],
      address,
    ),
    ['psql', '-h', '127.0.0.1', 'x=127.0.0.1:4242/4242', 'a b; {{other}}'],
  );
});

test('childEnvironment - tells where the app is and hides what is ours', (t) => {
  const env = childEnvironment(
    {
      PATH: '/bin',
      ZTNA_HOME: '/secret',
      ZTNA_KEY_PASSPHRASE_FILE: '/secret/file',
      ztna_anything: 'x',
      CREDENTIALS_DIRECTORY: '/run/credentials',
      ZTNA_PORT: '1',
    },
    address,
  );
  t.deepEqual(env, { PATH: '/bin', ZTNA_HOST: '127.0.0.1', ZTNA_PORT: '4242' });
});
