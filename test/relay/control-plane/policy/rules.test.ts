import test from 'ava';
import fc from 'fast-check';
import {
  explainDecision,
  explainRules,
  smallestChange,
  timeFacts,
  unknownPosture,
  type ExplainedRule,
  type PolicyContext,
  type PolicyFiles,
  type PolicyRequest,
} from '../../../../relay/control-plane/policy/index.ts';
import { context, engineWith, request } from './policy-fixture.ts';

interface Asked {
  readonly verdict: string;
  readonly rules: readonly ExplainedRule[];
  /** One rule's conditions, a line each. */
  readonly of: (id: string) => string[];
  readonly change: string[];
}

function changed(
  changes: Partial<Record<keyof PolicyContext, object>>,
  extraChecks: readonly string[],
): PolicyContext {
  return {
    device: { ...context.device, ...changes.device },
    posture: { ...unknownPosture(extraChecks), ...context.posture, ...changes.posture },
    authentication: { ...context.authentication, ...changes.authentication },
    network: { ...context.network, ...changes.network },
    time: { ...context.time, ...changes.time },
    risk: { ...context.risk, ...changes.risk },
  };
}

async function ask(
  files: PolicyFiles,
  changes: Partial<Record<keyof PolicyContext, object>> = {},
  who: Partial<PolicyRequest> = {},
  extraChecks: readonly string[] = [],
): Promise<Asked> {
  const engine = await engineWith(files, extraChecks);
  const asked: PolicyRequest = { ...request, context: changed(changes, extraChecks), ...who };
  const explained = explainDecision(engine, asked);
  const rules = explainRules(engine, asked, explained);
  return {
    verdict: explained.verdict,
    rules,
    of: (id) =>
      (rules.find((rule) => rule.id === id)?.conditions ?? []).map(
        ({ what, actual, required, met, choice }) =>
          `${met ? 'met' : 'not'} ${what}: ${actual} / ${required}${choice === null ? '' : ` #${choice}`}`,
      ),
    change: smallestChange(engine, asked, explained, rules).map(
      ({ what, actual, required }) => `${what}: ${actual} / ${required}`,
    ),
  };
}

const databases: PolicyFiles = {
  'databases.cedar': `// Whoever looks after databases.
@id("databases-need-care")
@name("Databases need care")
permit (principal in Group::"dba", action == Action::"connect", resource in Site::"berlin")
when {
  context.posture.disk_encryption == "on" && context.authentication.mfa && context.risk.score < 50 &&
  context.authentication.age_seconds < 3600 && context.posture.os_version_number >= 15000000
}
unless { context.time.hour < 8 || context.time.hour >= 18 };`,
};

test('explainRules - names the rule that would permit, and each condition as it is and as it must be', async (t) => {
  const asked = await ask(
    databases,
    { time: timeFacts(Date.parse('2026-11-20T09:30:00Z')), posture: { disk_encryption: 'off' } },
    { groups: ['dba', 'staff'] },
  );
  t.like(asked.rules, [
    {
      id: 'databases-need-care',
      name: 'Databases need care',
      file: 'databases.cedar',
      line: 2,
      effect: 'would_permit',
    },
  ]);
  t.deepEqual(asked.of('databases-need-care'), [
    'met groups: dba, staff / dba',
    'not posture.disk_encryption: off / on',
    'not authentication.mfa: false / true',
    'met risk.score: 10 / < 50',
    'met authentication.age_seconds: 600 / < 3600',
    'not posture.os_version_number: 14.5.1 / >= 15.0.0',
    'met time.hour: 9 / >= 8',
    'met time.hour: 9 / < 18',
  ]);
  t.deepEqual(asked.change.sort(), [
    'authentication.mfa: false / true',
    'posture.disk_encryption: off / on',
    'posture.os_version_number: 14.5.1 / >= 15.0.0',
  ]);
});

test('explainRules - an allow shows all that carries it', async (t) => {
  const asked = await ask(
    databases,
    {
      time: timeFacts(Date.parse('2026-11-20T09:30:00Z')),
      authentication: { mfa: true },
      posture: { os_version_number: 15_000_000 },
    },
    { groups: ['dba'] },
  );
  t.is(asked.verdict, 'allow');
  t.is(asked.rules[0]?.effect, 'permits');
  t.true(asked.rules[0]?.conditions.every(({ met }) => met));
  t.is(asked.rules[0]?.conditions.length, 8);
  t.deepEqual(asked.change, []);
});

test('explainRules - at night nothing of the user’s own would help, and the hour is named', async (t) => {
  const asked = await ask(
    databases,
    {
      time: timeFacts(Date.parse('2026-11-20T23:00:00Z')),
      authentication: { mfa: true },
      posture: { os_version_number: 15_000_000 },
    },
    { groups: ['dba'] },
  );
  t.is(asked.rules[0]?.effect, 'does_not_permit');
  t.deepEqual(
    asked.of('databases-need-care').filter((line) => line.startsWith('not')),
    ['not time.hour: 23 / < 18'],
  );
  t.deepEqual(asked.change, []);
});

test('smallestChange - finds the group that would do, with what else it takes', async (t) => {
  const files = {
    'a.cedar': `@id("dba") permit (principal in Group::"dba", action, resource) when { context.authentication.mfa };
@id("ops") permit (principal, action, resource) when { principal in [Group::"ops", Group::"oncall"] };`,
  };
  const asked = await ask(files);
  t.deepEqual(asked.change, ['groups: engineering / ops']);
  t.deepEqual(asked.of('ops'), ['not groups: engineering / one of ops, oncall']);
  t.deepEqual(asked.of('dba'), [
    'not groups: engineering / dba',
    'not authentication.mfa: false / true',
  ]);
  // A group that something else forbids is no way.
  const barred = await ask({
    ...files,
    'b.cedar': `@id("no-ops") forbid (principal in Group::"ops", action, resource);`,
  });
  t.deepEqual(barred.change, ['groups: engineering / oncall']);
});

test('explainRules - what forbids is named first, with what it lets by for', async (t) => {
  const files = {
    'all.cedar': '@id("staff") permit (principal in Group::"engineering", action, resource);',
    'forbid.cedar': `@id("healthy") forbid (principal, action, resource) unless { context.posture.edr == "on" && context.posture.firewall == "on" };
@id("countries") forbid (principal, action, resource) when { !(["DE", "FR"].contains(context.network.country)) };
@id("contractors") forbid (principal in Group::"contractors", action, resource) when { context.risk.score >= 30 };`,
  };
  const asked = await ask(files, { posture: { edr: 'unknown' }, network: { country: 'DE' } }, {}, [
    'edr',
  ]);
  t.deepEqual(
    asked.rules.map(({ id, effect }) => `${id} ${effect}`),
    [
      'healthy forbids',
      'staff permits',
      'countries does_not_forbid',
      'contractors does_not_forbid',
    ],
  );
  t.deepEqual(asked.of('healthy'), [
    'not posture.edr: unknown / on',
    'met posture.firewall: on / on',
  ]);
  t.deepEqual(asked.of('countries'), ['met network.country: DE / one of DE, FR']);
  t.deepEqual(asked.change, ['posture.edr: unknown / on']);
  const abroad = await ask(files, { posture: { edr: 'on' }, network: { country: 'RU' } }, {}, [
    'edr',
  ]);
  t.is(abroad.rules[0]?.id, 'countries');
  t.deepEqual(abroad.of('countries'), ['not network.country: RU / one of DE, FR']);
  t.deepEqual(abroad.change, []);
  const contractor = await ask(
    files,
    { posture: { edr: 'on' }, network: { country: 'DE' }, risk: { score: 40, factors: ['x'] } },
    { groups: ['engineering', 'contractors'] },
    ['edr'],
  );
  t.deepEqual(contractor.of('contractors'), [
    'not groups: engineering, contractors / not contractors #1',
    'not risk.score: 40 / < 30 #1',
  ]);
});

test('explainRules - one alternative that holds is told alone; those that do not are a choice', async (t) => {
  const files = {
    'p.cedar': `permit (principal, action, resource) when {
  (context.device.platform == "darwin" || context.device.platform == "win32") &&
  (context.authentication.mfa || context.network.address.isInRange(ip("10.0.0.0/8"))) &&
  (context.posture.antivirus == "on" || context.posture.physical == "on" && context.posture.patched == "on")
};`,
  };
  t.deepEqual((await ask(files)).of('p'), [
    'not device.platform: linux / darwin or win32',
    'met network.address: 10.1.2.3 / in 10.0.0.0/8',
    'not posture.antivirus: unknown / on',
  ]);
  const outside = await ask(files, {
    network: { address: '203.0.113.7' },
    posture: { patched: 'on' },
  });
  t.deepEqual(outside.of('p').slice(1, 3), [
    'not authentication.mfa: false / true #1',
    'not network.address: 203.0.113.7 / in 10.0.0.0/8 #1',
  ]);
});

const shapes: readonly (readonly [condition: string, line: string])[] = [
  ['50 > context.risk.score', 'met risk.score: 10 / < 50'],
  ['!(context.risk.score >= 5)', 'not risk.score: 10 / < 5'],
  ['context.authentication.mfa != true', 'met authentication.mfa: false / false'],
  ['context.authentication.mfa == true', 'not authentication.mfa: false / true'],
  ['!context.authentication.mfa', 'met authentication.mfa: false / false'],
  ['context.posture.antivirus != "off"', 'met posture.antivirus: unknown / not off'],
  [
    'context.authentication.methods.contains("totp")',
    'not authentication.methods: password / with totp',
  ],
  [
    'context.authentication.methods.containsAny(["totp", "password"])',
    'met authentication.methods: password / with any of totp, password',
  ],
  [
    '!context.authentication.methods.containsAll(["totp", "password"])',
    'met authentication.methods: password / not with all of totp, password',
  ],
  ['context.risk.factors.isEmpty()', 'met risk.factors: none / empty'],
  ['context.device.hostname like "lap*"', 'met device.hostname: laptop / like lap*'],
  ['context.device.entity == Device::"dev_2"', 'not device.id: dev_1 / dev_2'],
  ['principal == User::"bob"', 'not user: anna / bob'],
  ['resource.hasTag("env")', 'met labels.env: prod / set'],
  ['resource.getTag("env") != "prod"', 'not labels.env: prod / not prod'],
  ['context.network.address.isLoopback()', 'not network.address: 10.1.2.3 / a loopback address'],
  [
    'context.posture.os_build < context.posture.os_version_number',
    'met posture.os_build: 0 / < posture.os_version_number (14005001)',
  ],
  [
    'if context.authentication.mfa then true else context.risk.score < 5',
    'not if authentication.mfa then true else risk.score < 5: false / true',
  ],
  ['context.time.hour + 1 < 4', 'not (time.hour + 1) < 4: false / true'],
];

for (const [condition, line] of shapes) {
  test(`explainRules - reads ${condition}`, async (t) => {
    const guarded = condition.includes('getTag')
      ? `resource.hasTag("env") && ${condition}`
      : condition;
    const asked = await ask({
      'p.cedar': `permit (principal, action, resource) when { ${guarded} };`,
    });
    t.true(asked.of('p').includes(line), asked.of('p').join('\n'));
  });
}

test('explainRules - a condition that cannot be evaluated is not met, wanted or not', async (t) => {
  const tag = 'resource.hasTag("tier") && resource.getTag("tier") == "gold"';
  const asked = await ask({
    'p.cedar': `permit (principal, action, resource) when { ${tag} };
forbid (principal, action, resource) when { context.risk.score > 5 } unless { ${tag} };`,
  });
  t.deepEqual(asked.of('p#1'), ['not labels.tier: none / set', 'not labels.tier: none / gold']);
  t.is(asked.rules.find(({ id }) => id === 'p#2')?.effect, 'forbids');
});

test('explainRules - what always or never holds has no conditions', async (t) => {
  const asked = await ask({
    'p.cedar': `@id("never") permit (principal, action, resource) when { false };
@id("always") forbid (principal, action, resource);`,
  });
  t.deepEqual(
    asked.rules.map(({ id, effect, conditions }) => [id, effect, conditions.length]),
    [
      ['always', 'forbids', 0],
      ['never', 'does_not_permit', 0],
    ],
  );
  t.deepEqual(asked.change, []);
});

const booleans = [
  'context.authentication.mfa',
  'context.posture.disk_encryption == "on"',
  'context.posture.antivirus == "on"',
  'context.risk.score < 50',
  'context.risk.score < 5',
  'principal in Group::"engineering"',
  'principal in Group::"dba"',
  'resource.getTag("none") == "x"',
];
const conditions = fc.letrec<{ tree: string; leaf: string }>((tie) => ({
  leaf: fc.constantFrom(...booleans),
  tree: fc.oneof(
    { maxDepth: 3 },
    tie('leaf'),
    tie('tree').map((inner) => `!(${inner})`),
    fc
      .tuple(tie('tree'), fc.constantFrom('&&', '||'), tie('tree'))
      .map((parts) => `(${parts.join(' ')})`),
  ),
})).tree;

test('explainRules - all conditions of a rule are met exactly where Cedar finds that it lets by', async (t) => {
  const guarded = (text: string) =>
    text.replaceAll(
      /resource\.getTag\("none"\) == "x"/g,
      (tag) => `(resource.hasTag("none") && ${tag})`,
    );
  const bodies = fc.array(fc.tuple(conditions, conditions), { minLength: 12, maxLength: 12 });
  // Policies are checked in a thread of their own, which takes its time to start: many at once.
  await fc.assert(
    fc.asyncProperty(bodies, async (all) => {
      const texts = all.map(([when, unless], at) => {
        const body = `when { ${guarded(when)} } unless { ${guarded(unless)} };`;
        return `@id("permit${at}") permit (principal, action, resource) ${body}
@id("forbid${at}") forbid (principal, action, resource) ${body}`;
      });
      const asked = await ask({ 'p.cedar': texts.join('\n') });
      t.true(asked.rules.length >= 12);
      for (const { id, effect, conditions: rows } of asked.rules) {
        const isLetBy = effect === 'permits' || effect === 'does_not_forbid';
        t.is(
          rows.every(({ met }) => met),
          isLetBy,
          `${id} ${effect}\n${texts.join('\n')}`,
        );
      }
    }),
    { numRuns: 3 },
  );
});
