import test from 'ava';
import {
  checkPolicies,
  inputDigest,
  PolicyEngine,
  type PolicyRequest,
} from '../../../../relay/control-plane/policy/index.ts';
import { instantiateCedar } from '../../../../relay/control-plane/policy/cedar.ts';
import { context, engineWith, permitAll, permitWhen, request } from './policy-fixture.ts';

const withContext = (changes: object): PolicyRequest => ({
  ...request,
  context: { ...context, ...changes },
});

test('decide - denies everything while no policy is active', (t) => {
  t.deepEqual(new PolicyEngine().decide(request), {
    verdict: 'deny',
    reasons: [],
    errors: [],
    readsTime: false,
    policyVersion: 0,
  });
});

test('decide - permits by user, group, app, site, label and context, and nothing else', async (t) => {
  const engine = await engineWith({
    'a.cedar': `
@id("user") permit (principal == User::"carla", action, resource);
@id("app") permit (principal in Group::"engineering", action == Action::"connect", resource == App::"wiki");
@id("site") permit (principal in Group::"dba", action, resource in Site::"berlin")
when { resource.hasTag("env") && resource.getTag("env") == "prod"
    && context.network.address.isInRange(ip("10.0.0.0/8")) };`,
  });
  const reasons = (changes: Partial<PolicyRequest>) =>
    engine.decide({ ...request, ...changes }).reasons;
  t.deepEqual(reasons({}), ['app']);
  t.deepEqual(reasons({ groups: ['engineering', 'dba'] }), ['app', 'site']);
  t.deepEqual(reasons({ user: 'carla', groups: [], app: 'other', site: 'paris' }), ['user']);
  t.deepEqual(reasons({ groups: ['dba'], app: 'db' }), ['site']);
  t.deepEqual(reasons({ groups: ['dba'], app: 'db', labels: {} }), []);
  t.deepEqual(reasons({ groups: ['dba'], app: 'db', site: 'paris' }), []);
  t.deepEqual(reasons({ groups: [] }), []);
  t.is(engine.decide({ ...request, groups: [] }).verdict, 'deny');
  const elsewhere = { network: { address: '192.0.2.1', country: '' } };
  t.deepEqual(reasons({ groups: ['dba'], app: 'db', context: { ...context, ...elsewhere } }), []);
});

test('decide - lets a forbid override every permit', async (t) => {
  const engine = await engineWith({
    'a.cedar': `${permitAll} @id("no") forbid (principal, action, resource in Site::"berlin");`,
  });
  t.like(engine.decide(request), { verdict: 'deny', reasons: ['no'] });
  t.like(engine.decide({ ...request, site: 'paris' }), { verdict: 'allow' });
});

test('decide - denies when a policy fails, also one that forbids and would be skipped', async (t) => {
  const engine = await engineWith({
    'a.cedar': `${permitAll}
@id("sum") forbid (principal, action, resource)
when { context.risk.score + 9223372036854775807 == 1 };`,
  });
  const decision = engine.decide(request);
  t.is(decision.verdict, 'deny');
  t.is(decision.errors.length, 1);
  t.regex(decision.errors[0] ?? '', /^sum: .*overflow/);
});

test('decide - denies what does not fit the schema', async (t) => {
  const engine = await engineWith({ 'a.cedar': permitAll });
  for (const bad of [
    withContext({ network: { address: 'nowhere', country: '' } }),
    withContext({ risk: { score: 'low', factors: [] } }),
    withContext({ risk: { score: 1 } }),
    withContext({ risk: { score: 1.5, factors: [] } }),
    withContext({ extra: { a: 1 } }),
    withContext({ posture: undefined }),
    { ...request, labels: { env: 7 as never } },
  ]) {
    const decision = engine.decide(bad);
    t.is(decision.verdict, 'deny');
    t.true(decision.errors.length > 0);
  }
  t.is(engine.decide(request).verdict, 'allow');
});

test('decide - leaves out policies whose head names another app or site', async (t) => {
  const engine = await engineWith({
    'a.cedar': `permit (principal, action, resource == App::"wiki");
forbid (principal, action, resource is App in Site::"paris") when { context.time.hour > 99 };`,
  });
  t.like(engine.decide(request), { verdict: 'allow', readsTime: false });
  t.like(engine.decide({ ...request, app: 'x', site: 'paris' }), {
    verdict: 'deny',
    readsTime: true,
  });
  t.like(engine.decide({ ...request, app: 'x' }), { verdict: 'deny', readsTime: false });
});

test('decide - says whether the answer may change with time', async (t) => {
  const readsTime = async (condition: string) =>
    (await engineWith(permitWhen(condition))).decide(request).readsTime;
  for (const condition of [
    'context.time.hour < 18',
    'context.authentication.age_seconds < 900',
    'context.posture.age_seconds < 60',
    'context.device.enrolled_days > 3',
    'if context.risk.score > 5 then context.time.weekday < 6 else true',
    'context.time == context.time',
    'context has time',
    'context.risk.score < 50', // falls as time passes
  ]) {
    t.true(await readsTime(condition), condition);
  }
  for (const condition of [
    'context.authentication.mfa == false',
    'context.posture.firewall == "on"',
    'context.authentication.methods.contains("password")',
    '"context.time" != "x"',
  ]) {
    t.false(await readsTime(condition), condition);
  }
});

test('passingReads - names what is read of what passes, and the number that it is compared with', async (t) => {
  const read = async (condition: string) =>
    (await engineWith(permitWhen(condition))).passingReads(request);
  const all = { record: '*', member: null, limit: null };
  const age = { record: 'authentication', member: 'age_seconds' };
  const hour = { record: 'time', member: 'hour' };
  for (const [condition, ...expected] of [
    ['context.posture.firewall == "on"'],
    ['context.authentication.age_seconds < 900', { ...age, limit: 900 }],
    ['900 >= context.authentication.age_seconds', { ...age, limit: 900 }],
    ['context.authentication.age_seconds == -5', { ...age, limit: -5 }],
    ['context["authentication"]["age_seconds"] != 7', { ...age, limit: 7 }],
    ['context.authentication.age_seconds * 2 < 900', { ...age, limit: null }],
    [
      'context.authentication.age_seconds < context.time.hour',
      { ...age, limit: null },
      { ...hour, limit: null },
    ],
    ['context.time.hour < 9 || context.time.hour < 9', { ...hour, limit: 9 }],
    ['[1, 2].contains(context.time.hour)', { ...hour, limit: null }],
    ['{"<": context.time.hour} == {"<": 3}', { ...hour, limit: null }],
    ['context.time.date == "2030-01-01"', { record: 'time', member: 'date', limit: null }],
    ['context.risk == context.risk', { record: 'risk', member: null, limit: null }],
    ['context has time', all],
    ['context == context', all],
    [
      'if context.risk.score > 5 then true else false',
      { record: 'risk', member: 'score', limit: 5 },
    ],
  ] as const) {
    t.deepEqual(await read(condition), expected, condition);
  }
});

test('passingReads - are those of the policies whose head may match', async (t) => {
  const engine = await engineWith({
    'a.cedar': `permit (principal, action, resource == App::"wiki") when { context.time.hour > 9 };
permit (principal, action, resource in Site::"paris") when { context.time.minute > 9 };`,
  });
  const membersOf = (app: string, site: string) =>
    engine.passingReads({ app, site }).map(({ member }) => member);
  t.deepEqual(membersOf('wiki', 'paris'), ['hour', 'minute']);
  t.deepEqual(membersOf('wiki', 'berlin'), ['hour']);
  t.deepEqual(membersOf('mail', 'berlin'), []);
  engine.activate(await checkPolicies({ 'a.cedar': permitAll }), 2);
  t.deepEqual(membersOf('wiki', 'paris'), []);
});

test('decide - denies on a trap inside Cedar, then works on a fresh instance', async (t) => {
  let instances = 0;
  let isBroken = false;
  const engine = new PolicyEngine({}, () => {
    instances++;
    const cedar = instantiateCedar();
    return {
      ...cedar,
      statefulIsAuthorized: (call) => {
        if (isBroken) throw new RangeError('Maximum call stack size exceeded');
        return cedar.statefulIsAuthorized(call);
      },
    };
  });
  engine.activate(await checkPolicies({ 'a.cedar': permitAll }), 1);
  t.is(engine.decide(request).verdict, 'allow');
  const before = instances;
  isBroken = true;
  t.deepEqual(engine.decide(request), {
    verdict: 'deny',
    reasons: [],
    errors: ['Maximum call stack size exceeded'],
    readsTime: false,
    policyVersion: 1,
  });
  isBroken = false;
  t.is(engine.decide(request).verdict, 'allow');
  t.is(instances, before + 1);
});

test('decide - survives a real trap inside Cedar', async (t) => {
  let cedar = instantiateCedar();
  const engine = new PolicyEngine({}, () => (cedar = instantiateCedar()));
  engine.activate(await checkPolicies({ 'a.cedar': permitAll }), 1);
  const deep = `permit(principal, action, resource) when { ${'('.repeat(1_000)}true${')'.repeat(1_000)} };`;
  t.throws(() => cedar.policyToJson(deep), { any: true });
  t.is(engine.decide(request).verdict, 'deny');
  t.is(engine.decide(request).verdict, 'allow');
});

test('activate - keeps the old policies when the new ones cannot be prepared', async (t) => {
  let isBroken = false;
  const engine = new PolicyEngine({}, () => {
    const cedar = instantiateCedar();
    return {
      ...cedar,
      preparsePolicySet: (id, policies) => {
        if (isBroken) throw new RangeError('Maximum call stack size exceeded');
        return cedar.preparsePolicySet(id, policies);
      },
    };
  });
  engine.activate(await checkPolicies({ 'a.cedar': permitAll }), 1);
  isBroken = true;
  const next = await checkPolicies({ 'b.cedar': 'forbid (principal, action, resource);' });
  t.throws(() => engine.activate(next, 2), { code: 'ERR_POLICY_INVALID' });
  isBroken = false;
  t.is(engine.version, 1);
  t.like(engine.decide(request), { verdict: 'allow', reasons: ['a'], policyVersion: 1 });
  engine.activate(next, 2);
  t.like(engine.decide(request), { verdict: 'deny', reasons: ['b'], policyVersion: 2 });
});

test('decide - keeps apart more sets than it holds prepared', async (t) => {
  const count = 1_100;
  const texts = Array.from(
    { length: count },
    (_, i) =>
      `@id("p${String(i)}") permit (principal, action, resource == App::"app${String(i)}");`,
  );
  const engine = await engineWith({
    'a.cedar': texts.slice(0, 500).join('\n'),
    'b.cedar': texts.slice(500).join('\n'),
  });
  for (const i of [...Array(count).keys(), 0, 1, count - 1, 500]) {
    const decision = engine.decide({ ...request, app: `app${String(i)}` });
    t.deepEqual(decision.reasons, [`p${String(i)}`]);
  }
});

test('inputDigest - changes with every input but time', (t) => {
  const digest = inputDigest(request);
  const same: PolicyRequest[] = [
    { ...request },
    withContext({ time: { ...context.time, hour: 23 } }),
    withContext({ authentication: { ...context.authentication, age_seconds: 1 } }),
    withContext({ posture: { ...context.posture, age_seconds: 44 } }),
    withContext({ device: { ...context.device, enrolled_days: 13 } }),
    withContext({ risk: { factors: ['new_address'], score: 19 } }), // it falls by itself
  ];
  for (const other of same) t.is(inputDigest(other), digest);
  const changed: PolicyRequest[] = [
    { ...request, user: 'ben' },
    { ...request, groups: [] },
    { ...request, app: 'other' },
    { ...request, site: 'paris' },
    { ...request, labels: { env: 'test' } },
    withContext({ posture: { ...context.posture, firewall: 'off' } }),
    withContext({ posture: { ...context.posture, edr: 'on' } }),
    withContext({ authentication: { ...context.authentication, mfa: true } }),
    withContext({ network: { address: '10.1.2.4', country: '' } }),
    withContext({ risk: { score: 20, factors: [] } }),
  ];
  t.is(new Set([digest, ...changed.map(inputDigest)]).size, changed.length + 1);
  t.is(
    inputDigest({ ...request, groups: ['b', 'a'] }),
    inputDigest({ ...request, groups: ['a', 'b'] }),
  );
});
