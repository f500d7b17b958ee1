import { randomBytes } from 'node:crypto';
import test from 'ava';
import { newId } from '../../../../protocol/index.ts';
import { Sealer } from '../../../../relay/control-plane/authority/sealer.ts';
import {
  knownBrowserLifeMs,
  openKnownBrowser,
  sealKnownBrowser,
} from '../../../../relay/control-plane/identity/index.ts';
import { startMs } from '../fixture.ts';

const sealer = new Sealer(randomBytes(32));

test('known browser - is of one user and for its time, and nobody makes one', (t) => {
  const user = newId('user');
  const sealed = sealKnownBrowser(sealer, user, startMs);
  const known = openKnownBrowser(sealer, sealed, startMs + knownBrowserLifeMs - 1);
  t.is(known?.user, user);
  t.is(openKnownBrowser(sealer, sealed, startMs + knownBrowserLifeMs), undefined);
  const forged = [
    undefined,
    '',
    `${sealed.slice(0, -2)}AA`,
    sealer.seal(JSON.stringify({ id: 'x', user, untilMs: Infinity }), 'second step'),
    sealKnownBrowser(new Sealer(randomBytes(32)), user, startMs),
    'A'.repeat(10_000),
  ];
  for (const text of forged) t.is(openKnownBrowser(sealer, text, startMs), undefined);
});
