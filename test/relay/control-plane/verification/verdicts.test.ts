import test, { type ExecutionContext } from 'ava';
import { newId, type DevicePosture } from '../../../../protocol/index.ts';
import { decideAccess, toPolicyRequest } from '../../../../relay/control-plane/grant/decide.ts';
import {
  atLater,
  type AppFacts,
  type GroupFact,
  type SubjectFacts,
} from '../../../../relay/control-plane/grant/facts.ts';
import type { LiveTunnel } from '../../../../relay/control-plane/live/tunnel-index.ts';
import { inputDigest, type PolicyEngine } from '../../../../relay/control-plane/policy/index.ts';
import { Verdicts } from '../../../../relay/control-plane/verification/verdicts.ts';
import { SeededRandom } from '../../../support/random.ts';
import { startMs } from '../fixture.ts';
import { engineWith } from '../policy/policy-fixture.ts';

const windowMs = 60_000;
const postureAgeMs = 45_000;
const hourMs = 3_600_000;

/** What the store holds, as one reading of it: rows keep their identity until they change. */
class World {
  nowMs = startMs;
  user = {
    id: newId('user'),
    name: 'anna',
    role: null,
    disabled: 0 as 0 | 1,
    passwordHash: null,
    expiresAtMs: null as number | null,
    createdAtMs: startMs,
    kind: 'person' as const,
    provider: null,
    subject: null,
    externalId: null,
    displayName: null,
    provisionedBy: null,
    disabledByJson: '[]',
  };
  device = {
    id: newId('device'),
    userId: this.user.id,
    hostname: 'laptop',
    platform: 'linux',
    signingKey: '',
    noiseKey: '',
    certificateSerial: null,
    certificateNotAfterMs: null,
    state: 'enrolled' as const,
    createdAtMs: startMs - 5 * 24 * hourMs + 90_000,
    lastSeenAtMs: null,
    restrictedJson: '[]',
    unhealthy: 0 as const,
  };
  session = {
    id: newId('session'),
    userId: this.user.id,
    deviceId: this.device.id,
    provider: 'local',
    methodsJson: '["password"]',
    authenticatedAtMs: startMs - 200_000,
    createdAtMs: startMs,
    lastSeenAtMs: startMs,
    idleMs: 8 * hourMs,
    absoluteEndAtMs: startMs + 24 * hourMs,
    endedAtMs: null as number | null,
    endReason: null,
    address: '',
    acr: '',
  };
  methods: readonly string[] = ['password'];
  groups: readonly GroupFact[] = [{ name: 'staff', untilMs: null }];
  posture: SubjectFacts['posture'] = null;
  score = 0;
  address = '10.0.0.1';
  country = '';
  app: AppFacts;

  constructor() {
    const site = { id: newId('site'), name: 'berlin', createdAtMs: startMs };
    const app = {
      id: newId('app'),
      name: 'wiki',
      siteId: site.id,
      kind: 'tcp' as const,
      portHint: null,
      labelsJson: '{}',
      createdAtMs: startMs,
    };
    this.app = { app, site };
  }

  subject(): SubjectFacts {
    const { user, device, session, methods, posture, address, country, nowMs, score } = this;
    const name = 'unusual_hour';
    const contributions = score > 0 ? [{ name, points: score, detail: '' }] : [];
    const factors = contributions.map((part) => part.name);
    const groups = this.groups;
    const rest = { user, device, session, methods, posture, address, country, nowMs };
    const subject = { ...rest, groups, riskOf: () => ({ score, factors, contributions }) };
    return atLater(subject, nowMs); // as `subjectAt` has it
  }

  say(facts: DevicePosture): void {
    this.posture = { facts, atMs: this.nowMs, endMs: this.nowMs + postureAgeMs };
  }
}

const healthy = (firewall: 'on' | 'off' = 'on'): DevicePosture => ({
  platform: 'linux',
  osVersion: '24.04',
  clientVersion: '1.0.0',
  checks: [
    ['firewall', firewall, 'nft'],
    ['disk_encryption', 'on', 'lsblk'],
  ],
});

/** A tunnel whose stored decision is `decision`. */
function noteDecision(tunnel: LiveTunnel, decision: ReturnType<typeof decideAccess>): void {
  tunnel.inputDigest = decision.inputDigest;
  tunnel.policyVersion = decision.policyVersion;
}

function newTunnel(): LiveTunnel {
  return { inputDigest: '', policyVersion: 0 } as LiveTunnel;
}

/** Counts how often policy is asked. */
function counted(engine: PolicyEngine): { asked: number; stop: () => void } {
  const count = { asked: 0, stop: () => Reflect.deleteProperty(engine, 'decide') };
  const decide = engine.decide.bind(engine);
  engine.decide = (request) => {
    count.asked += 1;
    return decide(request);
  };
  return count;
}

const careful = {
  'p.cedar': `
    @id("staff") permit (principal in Group::"staff", action, resource) when { context.posture.firewall == "on" };
    @id("guests") permit (principal in Group::"guests", action, resource);
    @id("risky") forbid (principal, action, resource) when { context.risk.score >= 50 };`,
};

/** A confirmed verdict has to be what deciding anew would have said; answers whether it was confirmed. */
function decideBoth(
  t: ExecutionContext,
  { engine, verdicts, tunnel, world }: Bench,
  what: string,
): boolean {
  const subject = world.subject();
  const count = counted(engine);
  const remembered = verdicts.decide(engine, tunnel, subject, world.app, windowMs);
  const wasAsked = count.asked > 0;
  count.stop();
  const anew = decideAccess(engine, subject, world.app, windowMs);
  t.deepEqual({ ...remembered }, anew, what);
  noteDecision(tunnel, anew);
  return !wasAsked && anew.verdict === 'allow';
}

interface Bench {
  readonly engine: PolicyEngine;
  readonly verdicts: Verdicts;
  readonly tunnel: LiveTunnel;
  readonly world: World;
}

test('decide - a tunnel whose inputs are as they were is confirmed without asking policy', async (t) => {
  const engine = await engineWith(careful);
  const world = new World();
  world.say(healthy());
  const bench = { engine, verdicts: new Verdicts(), tunnel: newTunnel(), world };
  decideBoth(t, bench, 'first');
  const count = counted(engine);
  for (let tick = 0; tick < 5; tick++) {
    world.nowMs += 20_000;
    world.say(healthy());
    world.score = tick * 2; // of which the policy sees nothing
    const subject = world.subject();
    const { verdict, endMs } = bench.verdicts.decide(
      engine,
      bench.tunnel,
      subject,
      world.app,
      windowMs,
    );
    t.is(verdict, 'allow');
    t.is(endMs, world.nowMs + postureAgeMs); // posture carries it
  }
  t.is(count.asked, 0);
});

test('decide - a decision that is not the one on record is made anew', async (t) => {
  const engine = await engineWith(careful);
  const world = new World();
  world.say(healthy());
  const bench = { engine, verdicts: new Verdicts(), tunnel: newTunnel(), world };
  decideBoth(t, bench, 'first');
  const count = counted(engine);
  bench.tunnel.inputDigest = 'of another control plane';
  bench.verdicts.decide(engine, bench.tunnel, world.subject(), world.app, windowMs);
  t.true(count.asked > 0);
});

test('decide - what the end of the posture would mean is looked at again when time makes it another', async (t) => {
  const engine = await engineWith({
    'p.cedar': `@id("p") permit (principal, action, resource)
      when { context.posture.firewall == "on" || context.authentication.age_seconds < 300 };`,
  });
  const world = new World();
  world.session = { ...world.session, authenticatedAtMs: world.nowMs - 200_000 };
  const bench = { engine, verdicts: new Verdicts(), tunnel: newTunnel(), world };
  const endAfter = (ms: number) => {
    world.nowMs += ms;
    world.say(healthy());
    decideBoth(t, bench, `after ${String(ms)}`);
    return decideAccess(engine, world.subject(), world.app, windowMs).endMs;
  };
  t.true(endAfter(0) > world.nowMs + windowMs);
  t.true(endAfter(20_000) > world.nowMs + windowMs);
  t.is(endAfter(40_000), world.nowMs + postureAgeMs); // 260 s, and 305 s when the posture ends
});

/** Of these every second counts. */
const restless: readonly string[] = [
  'context.authentication.age_seconds + 1 < 300',
  '!(context has nothing) && context.time.minute < 40',
];

const conditions = [
  'context.authentication.age_seconds < 300',
  '240 <= context.authentication.age_seconds',
  'context.time.minute != 55',
  'context.time.hour < 18 && context.time.epoch_seconds > 5',
  'context.time.epoch_seconds < 1900000120',
  'context.device.enrolled_days < 5',
  'context.posture.age_seconds < 30',
  'context.posture.age_seconds >= 1000 || context.posture.firewall == "on"',
  'context.risk.score < 50',
  'context.risk.score == 40',
  'context.risk.factors.contains("unusual_hour")',
  'context.risk == context.risk && context.risk.score != 41',
  'context.time.minute < 40',
  ...restless,
  'context.posture.firewall == "on"',
  'principal in Group::"guests"',
  'context.network.country == "DE" || context.network.address.isInRange(ip("10.0.0.0/8"))',
];

/** Walks through changes of everything; answers how many verdicts were confirmed. */
async function walk(t: ExecutionContext, policy: string, seed: number): Promise<number> {
  const random = new SeededRandom(seed);
  const any = (count: number) => Math.floor(random.next() * count);
  const engine = await engineWith({
    'p.cedar': `${policy} @id("rest") permit (principal in Group::"staff", action, resource);`,
  });
  const world = new World();
  const bench: Bench = { engine, verdicts: new Verdicts(), tunnel: newTunnel(), world };
  const changes: (() => void)[] = [
    () => (world.score = any(3) + 39 + 10 * any(2)),
    () => (world.groups = [{ name: 'staff', untilMs: any(2) ? null : world.nowMs + 90_000 }]),
    () => (world.groups = [...world.groups, { name: 'guests', untilMs: world.nowMs + 70_000 }]),
    () => (world.groups = [{ name: 'staff', untilMs: null }]),
    () => (world.country = any(2) ? 'DE' : 'FR'),
    () => (world.address = `${String(9 + any(3))}.0.0.1`),
    () => (world.session = { ...world.session, authenticatedAtMs: world.nowMs - any(400_000) }),
    () => (world.user = { ...world.user, expiresAtMs: any(2) ? null : world.nowMs + 100_000 }),
    () => (world.user = { ...world.user, disabled: any(4) === 0 ? 1 : 0 }),
    () => (world.posture = null),
    () => world.say(healthy(any(2) ? 'on' : 'off')),
    () => (world.app = { ...world.app, app: { ...world.app.app, labelsJson: '{"a":"b"}' } }),
  ];
  let confirmed = 0;
  for (let step = 0; step < 100; step++) {
    world.nowMs += any(4) === 0 ? 45_000 : any(21_000);
    if (any(3) > 0 && world.posture) world.say(structuredClone(world.posture.facts));
    if (any(4) === 0) changes[any(changes.length)]?.();
    if (decideBoth(t, bench, `step ${String(step)}`)) confirmed += 1;
  }
  return confirmed;
}

for (const [at, condition] of conditions.entries()) {
  test(`decide - what is remembered says what deciding anew does: ${condition}`, async (t) => {
    const when = `(principal, action, resource) when { ${condition} };`;
    const permitted = await walk(t, `@id("p") permit ${when}`, at + 1);
    const forbidden = await walk(t, `@id("p") forbid ${when}`, at + 100);
    const confirmed = permitted + forbidden;
    if (!restless.includes(condition)) t.true(confirmed > 2, `${String(confirmed)} confirmed`);
  });
}

test('decide - what an input digest leaves out is all that passes with time', async (t) => {
  const engine = await engineWith(careful);
  const world = new World();
  const digests = new Set<string>();
  for (let step = 0; step < 50; step++) {
    world.nowMs += 1_000_003 * step;
    world.say(healthy());
    digests.add(inputDigest(toPolicyRequest(engine, world.subject(), world.app)));
  }
  t.is(digests.size, 1);
});
