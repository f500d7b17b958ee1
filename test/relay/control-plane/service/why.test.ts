import anyTest, { type TestFn } from 'ava';
import { parseEnrolmentCode, type ToDevice } from '../../../../protocol/index.ts';
import { enrol } from '../../../../protocol/host/index.ts';
import { machineFacts } from '../../../../protocol/host/enrolment.ts';
import { password, Rig, type DevicePeer } from './rig.ts';

const test = anyTest as TestFn<{ rig: Rig; device: DevicePeer }>;

const policies = {
  'wiki.cedar': `@id("wiki-for-staff") @name("Staff read the wiki")
permit (principal in Group::"staff", action == Action::"connect", resource == App::"wiki") when { context.risk.score < 90 };`,
  'ledger.cedar': `@id("ledger-with-care")
permit (principal in Group::"staff", action == Action::"connect", resource == App::"ledger")
when { context.authentication.mfa && context.device.platform == "linux" && resource.hasTag("tier") };
@id("ledger-for-auditors")
permit (principal in Group::"auditors", action == Action::"connect", resource == App::"ledger");
@id("no-guests-in-ledger")
forbid (principal, action, resource == App::"ledger") when { principal in [Group::"guests", Group::"interns"] };`,
  'vault.cedar': `@id("vault-for-keepers")
permit (principal in Group::"keepers", action == Action::"connect", resource == App::"vault") when { context.authentication.mfa };`,
};

test.beforeEach('a deployment with three apps', async (t) => {
  const rig = await Rig.start();
  t.context.rig = rig;
  rig.version = 3;
  await rig.admin('policy.apply', { files: policies });
  await rig.admin('site.add', { name: 'berlin' });
  for (const name of ['wiki', 'ledger', 'vault']) {
    await rig.admin('app.add', { name, site: 'berlin', labels: { tier: 'one' } });
  }
  t.context.device = await rig.device('alice');
});

test.afterEach.always('stop', async (t) => {
  await t.context.rig.stop();
});

type Answer = Extract<ToDevice, { type: 'why' }>;

async function why({ channel }: DevicePeer, app: string): Promise<Answer> {
  const answer = await channel.request({ type: 'why', app });
  if (answer.type !== 'why') throw new Error('no answer');
  return answer;
}

test.serial(
  'why - an allow names its rule and what carries it, but not how risk is weighed',
  async (t) => {
    t.like(await why(t.context.device, 'wiki'), {
      allowed: true,
      fix: null,
      rules: [{ id: 'wiki-for-staff', name: 'Staff read the wiki', effect: 'permits' }],
      conditions: [
        { what: 'groups', actual: 'staff', required: 'staff', met: true, rule: 'wiki-for-staff' },
      ],
    });
  },
);

test.serial(
  'why - a remedy names the rule that would permit, and of it only what is the user’s own',
  async (t) => {
    const answer = await why(t.context.device, 'ledger');
    t.false(answer.allowed);
    t.deepEqual(answer.rules, [{ id: 'ledger-with-care', name: null, effect: 'would_permit' }]);
    const rule = 'ledger-with-care';
    t.deepEqual(answer.conditions, [
      { what: 'groups', actual: 'staff', required: 'staff', met: true, rule },
      { what: 'authentication.mfa', actual: 'false', required: 'true', met: false, rule },
      { what: 'device.platform', actual: 'linux', required: 'linux', met: true, rule },
    ]);
    t.regex(answer.fix ?? '', /one-time password/);
    t.notRegex(JSON.stringify(answer), /auditors|guests|interns|tier/);
  },
);

test.serial(
  'why - what no remedy opens has no rule, like an app that does not exist',
  async (t) => {
    for (const app of ['vault', 'nothing']) {
      const { decision, id, ...rest } = await why(t.context.device, app);
      t.regex(decision, /^dec_/);
      t.true(id > 0);
      t.deepEqual(rest, { type: 'why', app, allowed: false, conditions: [], fix: null });
    }
  },
);

test.serial('why - a client of version 2 is told the same conditions and no rules', async (t) => {
  const { rig, device } = t.context;
  rig.version = 2;
  const old = await rig.connectDevice(device.identity);
  const answer = await why(old, 'ledger');
  t.false('rules' in answer);
  t.deepEqual(answer.conditions, [
    { what: 'groups', actual: 'staff', required: 'staff', met: true },
    { what: 'authentication.mfa', actual: 'false', required: 'true', met: false },
    { what: 'device.platform', actual: 'linux', required: 'linux', met: true },
  ]);
});

test.serial('why - words of policies that no message may hold are made plain', async (t) => {
  const { rig, device } = t.context;
  const odd = `@id("odd") @name("two\\nlines ${'and more '.repeat(30)}")
permit (principal, action, resource) when { context.device.hostname != "${'x'.repeat(127)}🙂\\u{7}" };`;
  await rig.admin('policy.apply', { files: { 'odd.cedar': odd } });
  const answer = await why(device, 'wiki');
  t.true(answer.allowed);
  t.regex(answer.rules?.[0]?.name ?? '', /^two lines and more/);
  t.like(answer.conditions[0], { what: 'device.hostname', actual: 'alice-laptop', met: true });
});

test.serial(
  'policy - the platform of a device is one word, whatever release it told when it enrolled',
  async (t) => {
    const { rig } = t.context;
    const { identity } = await enrol({
      code: parseEnrolmentCode(await rig.userCode('bob', ['staff'])),
      ...machineFacts(),
      password,
      expectRole: 'device',
    });
    const bob = await rig.connectDevice(identity);
    const only = `@id("here") permit (principal, action, resource == App::"wiki") when { context.device.platform == "${process.platform}" };`;
    await rig.admin('policy.apply', { files: { 'here.cedar': only } });
    t.true((await why(bob, 'wiki')).allowed);
  },
);

interface PolicyWhy {
  readonly allowed: boolean;
  readonly rules: readonly {
    readonly id: string;
    readonly effect: string;
    readonly conditions: readonly { readonly what: string; readonly met: boolean }[];
  }[];
  readonly change: unknown;
  readonly risk: { readonly score: number; readonly contributions: readonly unknown[] };
}

test.serial(
  'policy why - names every rule about the app, and the smallest change with groups',
  async (t) => {
    const { rig } = t.context;
    const vault = await rig.admin<PolicyWhy>('policy.why', { user: 'alice', app: 'vault' });
    t.like(vault, {
      allowed: false,
      change: [
        { what: 'groups', actual: 'staff', required: 'keepers' },
        { what: 'authentication.mfa', actual: 'false', required: 'true' },
      ],
      risk: { score: 0, contributions: [] },
    });
    t.deepEqual(vault.rules, [
      {
        ...{ id: 'vault-for-keepers', name: null, file: 'vault.cedar', line: 1 },
        effect: 'does_not_permit',
        conditions: [
          { what: 'groups', actual: 'staff', required: 'keepers', met: false, choice: null },
          {
            what: 'authentication.mfa',
            actual: 'false',
            required: 'true',
            met: false,
            choice: null,
          },
        ],
      },
    ] as unknown as PolicyWhy['rules']);
    const ledger = await rig.admin<PolicyWhy>('policy.why', { user: 'alice', app: 'ledger' });
    t.deepEqual(
      ledger.rules.map(({ id, effect }) => `${id} ${effect}`),
      [
        'ledger-with-care would_permit',
        'ledger-for-auditors does_not_permit',
        'no-guests-in-ledger does_not_forbid',
      ],
    );
    t.true(ledger.rules[0]?.conditions.some(({ what, met }) => what === 'labels.tier' && met));
  },
);

test.serial(
  'risk - its parts are told for a session and a decision, and stand in the decision and the audit log',
  async (t) => {
    const { rig, device } = t.context;
    const { store, risk } = rig.plane.services;
    const session = await store.db.selectFrom('sessions').selectAll().executeTakeFirstOrThrow();
    for (let count = 0; count < 7; count++) {
      const { userId: user, deviceId } = session;
      risk.note({ kind: 'sign_in_refused', user, device: deviceId, app: null, address: null });
    }
    await risk.keep();
    interface Risk {
      readonly score: number;
      readonly contributions: readonly { readonly name: string; readonly points: number }[];
    }
    const shown = await rig.admin<{ risk: Risk }>('session.show', { id: session.id });
    t.true(shown.risk.score > 0);
    t.like(shown.risk.contributions[0], { name: 'failed_sign_ins', points: shown.risk.score });
    const asked = await rig.admin<PolicyWhy>('policy.why', { user: 'alice', app: 'wiki' });
    t.is(asked.risk.score, shown.risk.score);
    const { decision } = await why(device, 'wiki');
    const stored = await rig.admin<{ inputs: { risk: Risk['contributions'] } }>('decision.show', {
      id: decision,
    });
    t.like(stored.inputs.risk[0], { name: 'failed_sign_ins' });
    const again = await rig.admin<{ isSame: boolean }>('policy.replay', { decision });
    t.true(again.isSame);
    await t.throwsAsync(device.channel.request({ type: 'grant', app: 'vault' }));
    const record = await store.db
      .selectFrom('audit')
      .select('detailsJson')
      .where('action', '=', 'decision.made')
      .orderBy('position', 'desc')
      .executeTakeFirstOrThrow();
    const details = JSON.parse(record.detailsJson) as { risk: Risk };
    t.is(details.risk.score, shown.risk.score);
    t.like(details.risk.contributions[0], { name: 'failed_sign_ins' });
  },
);
