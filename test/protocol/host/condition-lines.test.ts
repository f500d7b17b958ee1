import test from 'ava';
import { conditionLines } from '../../../protocol/host/index.ts';

test('conditionLines - says of each what is met and what must be otherwise, in columns', (t) => {
  t.deepEqual(
    conditionLines([
      { what: 'groups', actual: 'staff', required: 'staff', met: true },
      { what: 'risk.score', actual: '10', required: '< 50', met: true },
      { what: 'authentication.mfa', actual: 'false', required: 'true', met: false, choice: 1 },
      { what: 'network.country', actual: 'RU', required: 'DE', met: false, choice: 1 },
      { what: 'posture.firewall', actual: 'off', required: 'on', met: false, choice: 2 },
    ]),
    [
      '  met      groups              staff',
      '  met      risk.score          10     must be < 50',
      '  not met  authentication.mfa  false  must be true, or',
      '  not met  network.country     RU     must be DE',
      '  not met  posture.firewall    off    must be on',
    ],
  );
});

test('conditionLines - one long text does not push the others aside', (t) => {
  const long = 'x'.repeat(120);
  const lines = conditionLines([
    { what: long, actual: 'false', required: 'true', met: false },
    { what: 'groups', actual: 'none', required: 'dba', met: false },
  ]);
  t.true(lines[0]?.includes(long));
  t.true((lines[1]?.length ?? 0) < 80);
  t.deepEqual(conditionLines([]), []);
});
