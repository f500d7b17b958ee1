import test from 'ava';
import fc from 'fast-check';
import { failures, said } from './answers.ts';
import { healthyOutputs } from './parsers.ts';

const maxBytes = 65_536;

/** What tools print that were never meant to be read here. */
const notUnderstood: readonly string[] = [
  '',
  '\n\n\n',
  '\0\0\0\0',
  'null',
  '[]',
  '{}',
  '""',
  'true',
  '1e999',
  '{"blockdevices":null}',
  '{"blockdevices":[null]}',
  '{"blockdevices":[{"type":"crypt","mountpoints":"/"}]}',
  '{"__proto__":{"shellProtection":1}}',
  '{"shellProtection":"1","secureBootState":"1","secureBoot":"true"}',
  '{"firewall":{"name":"Domain","enabled":1},"lock":{}}',
  'on',
  'enabled',
  'FileVault ist aktiviert.',
  'Le pare-feu est activé. (État = 1)',
  'Status: Aktiv',
  'Estado: activo',
  'Firewall is enabled. (State = 1) says who?',
  'ERROR: You need to be root to run this script',
  'Failed to connect to bus: No such file or directory',
  "System has not been booted with systemd as init system (PID 1). Can't operate.",
  'FEHLER: Der angegebene Registrierungsschlüssel bzw. Wert wurde nicht gefunden.',
  'usage: -',
  'SecureBoot enabled but validation is off',
  'not running',
  'System Integrity Protection status: unknown (Custom Configuration).',
  '<html><body>captive portal</body></html>',
  'x'.repeat(maxBytes),
  ' '.repeat(maxBytes),
  '\t'.repeat(maxBytes / 2) + '\n'.repeat(maxBytes / 2),
  '['.repeat(maxBytes),
  '{"blockdevices":['.padEnd(maxBytes, '{"type":"disk","children":['),
  'chain '.repeat(10_000),
  'screenLock delay is '.repeat(3_000),
];

test('healthy output - is what each tool prints on a healthy machine', (t) => {
  for (const { name, judge, healthy, exitCode } of healthyOutputs) {
    const finding = judge(said(healthy, exitCode ?? 0));
    t.is(finding.result, 'on', `${name}: ${finding.how}`);
    t.regex(finding.how, /^[\x20-\x7e]{3,128}$/, name);
  }
});

test('parsers - find unknown what a tool that is missing, hangs, floods or dies does not say', (t) => {
  for (const { name, judge } of healthyOutputs) {
    for (const failure of failures) t.is(judge(failure).result, 'unknown', name);
  }
});

test('parsers - never find healthy what is empty, localised, huge or something else', (t) => {
  for (const { name, judge } of healthyOutputs) {
    for (const text of notUnderstood) {
      for (const exitCode of [0, 1, 3, 255]) {
        const { result } = judge(said(text, exitCode, text.slice(0, 100)));
        t.not(result, 'on', `${name}: ${JSON.stringify(text.slice(0, 60))}`);
      }
    }
  }
});

test('parsers - never find healthy what was cut off where its end matters', (t) => {
  for (const { name, judge, healthy, exitCode, isEndNeeded } of healthyOutputs) {
    const { length } = healthy.trimEnd();
    for (let end = 0; end < length; end += 1) {
      const { result } = judge(said(healthy.slice(0, end), exitCode ?? 0));
      if (isEndNeeded !== false) t.not(result, 'on', `${name} up to ${String(end)}`);
    }
  }
});

test('parsers - never find healthy what a failing tool printed', (t) => {
  for (const { name, judge, healthy, exitCode, isExitCodeHeeded } of healthyOutputs) {
    if (isExitCodeHeeded === false) continue;
    t.is(exitCode ?? 0, 0);
    t.not(judge(said(healthy, 1)).result, 'on', name);
    t.not(judge(said(healthy, 255)).result, 'on', name);
  }
});

test('parsers - never throw, and tell what can be sent, whatever is printed', (t) => {
  const pieces = healthyOutputs.flatMap(({ healthy }) => healthy.split(/[\s"{}[\]:,]+/));
  const printed = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 200 }),
    fc.json(),
    fc
      .array(fc.constantFrom(...pieces, '\n', ' ', '{', '}', '"', '[', ']', ':', ','), {
        maxLength: 60,
      })
      .map((parts) => parts.join(' ')),
  );
  fc.assert(
    fc.property(printed, printed, fc.integer({ min: 0, max: 3 }), (stdout, stderr, exitCode) => {
      for (const { judge } of healthyOutputs) {
        const { result, how } = judge({ stdout, stderr, exitCode });
        if (!['on', 'off', 'unknown'].includes(result) || !/^[\x20-\x7e]{0,128}$/.test(how)) {
          throw new Error(`${result}: ${how}`);
        }
      }
    }),
    { numRuns: 300 },
  );
  t.pass();
});

test('parsers - never find healthy random bytes', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 400 }), (bytes) => {
      const stdout = Buffer.from(bytes).toString('utf8');
      return healthyOutputs.every(
        ({ judge }) => judge({ stdout, stderr: '', exitCode: 0 }).result !== 'on',
      );
    }),
    { numRuns: 200 },
  );
  t.pass();
});
