import anyTest, { type TestFn } from 'ava';
import type { ToDevice, ZtnaError } from '../../protocol/index.ts';
import { auditHead, auditRows } from '../support/audit-rows.ts';
import { CheatingClient } from '../support/cheating-client.ts';
import { Deployment, passwordOf, type Machine } from '../support/deployment.ts';
import { launchers, runProgram, type Finished } from '../support/program.ts';

interface Context {
  deployment: Deployment;
  owner: Machine;
  outsider: Machine;
  stops: (() => unknown)[];
}
const test = anyTest as TestFn<Context>;

test.before('three apps: allowed, denied, and denied without a connector', async (t) => {
  t.timeout(90_000);
  const stops: (() => unknown)[] = [];
  t.context.stops = stops;
  const deployment = await Deployment.start({
    isGuessDear: true,
    apps: [
      { name: 'open', target: 'tcp://127.0.0.1:9' },
      { name: 'secret', target: 'tcp://127.0.0.1:9' },
    ],
    policies: {
      'staff.cedar': `@id("staff") permit (principal in Group::"staff", action == Action::"connect", resource == App::"open");`,
    },
  });
  stops.push(() => deployment.stop());
  await deployment.admin('app', 'add', 'offline', '--site', 'local');
  t.context.owner = await deployment.enrol('owner');
  t.context.outsider = await deployment.enrol('outsider');
  t.context.deployment = deployment;
});

test.after.always('stop', async (t) => {
  for (const stop of t.context.stops.reverse()) await stop();
});

const denied = ['secret', 'offline'] as const;
const unknown = 'absent';

/** What a person sees, with the reference and the name asked for blotted out. */
function masked({ code, signal, stdout, stderr }: Finished, app: string): unknown {
  const mask = (text: string) => text.replaceAll(/dec_[0-9a-z]{26}/g, 'REF').replaceAll(app, 'APP');
  return { code, signal, stdout: mask(stdout), stderr: mask(stderr) };
}

for (const args of [
  ['connect', '--listen', '0'],
  ['connect', '--json'],
  ['connect', '--stdio'],
  ['why'],
  ['why', '--json'],
]) {
  test.serial(
    `ztna ${args.join(' ')} - a denied app and one that does not exist look alike`,
    async (t) => {
      const { owner } = t.context;
      const [command = '', ...options] = args;
      const ask = (app: string) => owner.ztna(command, app, ...options);
      const stranger = await ask(unknown);
      t.is(stranger.code, 5);
      t.regex(stranger.stdout + stranger.stderr, /dec_[0-9a-z]{26}/);
      for (const app of denied)
        t.deepEqual(masked(await ask(app), app), masked(stranger, unknown), app);
    },
  );
}

test.serial('ztna why - an app of the user’s own is explained by its rule', async (t) => {
  const { stdout, code } = await t.context.owner.ztna('why', 'open');
  t.is(code, 0);
  t.is(stdout, 'open: allowed\nstaff permits\n  met      groups  staff\n');
});

test.serial('ztna apps - lists neither', async (t) => {
  const { stdout, code } = await t.context.owner.ztna('apps', '--json');
  t.is(code, 0);
  const rows = stdout.split('\n').filter(Boolean);
  t.deepEqual(
    rows.map((line) => (JSON.parse(line) as { name: string }).name),
    ['open'],
  );
});

test.serial(
  'control channel - the refusals are the same bytes but for the reference',
  async (t) => {
    const client = await CheatingClient.open(t.context.owner);
    const refusalOf = async (app: string): Promise<unknown> => {
      const error = await t.throwsAsync<ZtnaError>(client.request({ type: 'grant', app }));
      const { code, message, hint, ref, hop } = error;
      t.regex(ref ?? '', /^dec_[0-9a-z]{26}$/);
      return { code, message, hint, hop };
    };
    const whyOf = async (app: string): Promise<unknown> => {
      const answer = (await client.request({ type: 'why', app })) as Extract<
        ToDevice,
        { type: 'why' }
      >;
      return { ...answer, id: 0, app: '', decision: '' };
    };
    for (const app of denied) {
      t.deepEqual(await refusalOf(app), await refusalOf(unknown));
      t.deepEqual(await whyOf(app), await whyOf(unknown));
    }
    await client.close();
  },
);

test.serial(
  'audit - a denied and an unknown app are told apart there, with the reference that the user saw',
  async (t) => {
    const { deployment, owner } = t.context;
    const after = await auditHead(deployment);
    const refs: string[] = [];
    for (const app of ['secret', unknown]) {
      const { stderr } = await owner.ztna('connect', app, '--json');
      refs.push((JSON.parse(stderr) as { error: { ref: string } }).error.ref);
    }
    const rows = await auditRows(deployment, after);
    for (const ref of refs) t.is(rows.filter((row) => row.ref === ref).length, 1, ref);
  },
);

test.serial('sign-in - hundreds of wrong ones at once do not lock the owner out', async (t) => {
  t.timeout(60_000);
  const { owner, outsider } = t.context;
  const attackers = await Promise.all([
    CheatingClient.open(outsider),
    CheatingClient.open(outsider),
    CheatingClient.open(outsider),
    CheatingClient.open(outsider),
  ]);
  const wrong = attackers.flatMap((attacker) =>
    Array.from({ length: 90 }, async (_, i) => {
      const password = `guess-number-${i}-of-many`;
      const error = await t.throwsAsync<ZtnaError>(
        attacker.request({ type: 'sign_in', user: 'owner', password, otp: null }),
      );
      return error.code;
    }),
  );
  const login = await runProgram(launchers.ztna, ['login', '--password-stdin'], {
    env: owner.env,
    input: `${passwordOf('owner')}\n`,
  });
  t.is(login.code, 0, login.stderr); // whatever others try meanwhile
  const codes = new Set(await Promise.all(wrong));
  for (const attacker of attackers) await attacker.close();
  for (const code of codes) {
    t.regex(code, /^ERR_(IDENTITY_SIGN_IN_REFUSED|LIMIT_RATE)$/);
  }
  t.true(codes.has('ERR_LIMIT_RATE'));
});
