import anyTest, { type TestFn } from 'ava';
import { URI } from 'otpauth';
import { password, type DevicePeer } from '../service/rig.ts';
import { fieldOf, locationOf, PageRig } from './page-rig.ts';

const test = anyTest as TestFn<{ pages: PageRig }>;

test.before(async (t) => {
  t.context.pages = await PageRig.start();
});
test.after.always(async (t) => {
  await t.context.pages.stop();
});

const step = (user: string, secret = password) => ({ step: 'password', user, password: secret });

async function setUpOtp(device: DevicePeer): Promise<string> {
  const begun = await device.channel.request({ type: 'otp_begin' });
  if (begun.type !== 'otp_secret') throw new Error('no secret');
  const otp = URI.parse(begun.uri).generate({ timestamp: Date.now() - 30_000 });
  await device.channel.request({ type: 'otp_confirm', otp });
  return begun.uri;
}

test.serial(
  'sign-in page - brings the right person’s ticket to the command that asked',
  async (t) => {
    const { pages } = t.context;
    const device = await pages.rig.device('alice');
    const begun = await pages.begin(device, 40_123);
    const page = await pages.get(begun.path);
    t.is(page.status, 200);
    t.regex(page.text, /alice-laptop/);
    t.regex(page.text, /value="alice"/);
    const policy = String(page.headers['content-security-policy']);
    t.regex(policy, /default-src 'none'/);
    t.regex(policy, /form-action 'self' http:\/\/127\.0\.0\.1:40123;/);
    t.notRegex(policy, /unsafe/);
    t.notRegex(page.text, /<script>|\son[a-z]+=|style="/);

    const sent = await pages.post(begun.path, step('alice'));
    t.is(sent.status, 303);
    const back = locationOf(sent);
    t.is(back.origin, 'http://127.0.0.1:40123');
    t.is(back.searchParams.get('sign_in'), begun.signIn);
    const session = await pages.finish(device, begun, back.searchParams.get('ticket'));
    t.like(session, { user: 'alice', methods: ['password'] });
    t.is((await pages.get(begun.path)).status, 404);
    t.is((await pages.post(begun.path, step('alice'))).status, 404);
  },
);

test.serial(
  'sign-in page - shows the ticket where no command listens beside the browser',
  async (t) => {
    const { pages } = t.context;
    const device = await pages.rig.device('berta');
    const begun = await pages.begin(device);
    const shown = await pages.post(begun.path, step('berta'));
    t.is(shown.status, 200);
    const session = await pages.finish(device, begun, fieldOf(shown, 'ticket'));
    t.is(session.user, 'berta');
  },
);

test.serial(
  'sign-in page - asks for the one-time password that is set up, and takes each once',
  async (t) => {
    const { pages } = t.context;
    const device = await pages.rig.device('carla');
    const uri = await setUpOtp(device);
    const begun = await pages.begin(device, 40_123);
    const second = await pages.post(begun.path, step('carla'));
    t.is(second.status, 200);
    const token = fieldOf(second, 'token');
    const wrong = await pages.post(begun.path, { step: 'otp', token, otp: '12345' });
    t.is(wrong.status, 403);
    t.is(fieldOf(wrong, 'token'), token);

    const otp = URI.parse(uri).generate();
    const done = await pages.post(begun.path, { step: 'otp', token, otp });
    const session = await pages.finish(device, begun, locationOf(done).searchParams.get('ticket'));
    t.deepEqual(session.methods, ['password', 'totp']);

    const again = await pages.begin(device, 40_123);
    const replayed = fieldOf(await pages.post(again.path, step('carla')), 'token');
    t.is((await pages.post(again.path, { step: 'otp', token: replayed, otp })).status, 403);
    // What proved the password of one sign-in proves nothing in another.
    const other = await pages.begin(device, 40_123);
    const stolen = await pages.post(other.path, { step: 'otp', token: replayed, otp: '123456' });
    t.is(stolen.status, 403);
    t.throws(() => fieldOf(stolen, 'token'));
    const reasons = (await pages.refusals('session.sign_in')).map(({ reason }) => reason);
    for (const reason of ['totp_wrong', 'totp_replayed', 'step_over'])
      t.true(reasons.includes(reason));
  },
);

test.serial(
  'sign-in page - tells a wrong password, an unknown user and another’s device alike',
  async (t) => {
    const { pages } = t.context;
    const device = await pages.rig.device('dora');
    await pages.rig.device('eva');
    const begun = await pages.begin(device, 40_123);
    const bare = (text: string) => text.replace(/value="(dora|eva|nobody)"/, '');
    const answers = await Promise.all([
      pages.post(begun.path, step('dora', 'wrong-horse-of-a-test')),
      pages.post(begun.path, step('nobody')),
      pages.post(begun.path, step('eva')),
    ]);
    t.deepEqual(
      answers.map(({ status }) => status),
      [403, 403, 403],
    );
    t.is(new Set(answers.map(({ text }) => bare(text))).size, 1);
    t.is((await pages.post(begun.path, step('dora'))).status, 303);
  },
);

test.serial('sign-in page - takes nothing that another site’s page sends', async (t) => {
  const { pages } = t.context;
  const device = await pages.rig.device('frida');
  const begun = await pages.begin(device, 40_123);
  const strange: Record<string, string | undefined>[] = [
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: undefined },
    { 'sec-fetch-site': 'cross-site' },
  ];
  for (const headers of strange) {
    t.is((await pages.post(begun.path, step('frida'), headers)).status, 403);
  }
  const text = await pages.post(begun.path, step('frida'), { 'content-type': 'text/plain' });
  t.is(text.status, 400);
  const large = await pages.post(begun.path, { ...step('frida'), more: 'x'.repeat(40_000) });
  t.is(large.status, 413);
  t.is((await pages.post(begun.path, step('frida'))).status, 303);
});

test.serial(
  'pages - show what users and devices are called as text, never as markup',
  async (t) => {
    const { pages } = t.context;
    const device = await pages.rig.device('gerda');
    const { store } = pages.rig.plane.services;
    const hostname = `<img src=x onerror=alert(1)>"'&`;
    await store.write((tx) =>
      tx
        .updateTable('devices')
        .set({ hostname })
        .where('id', '=', device.identity.id as never)
        .execute(),
    );
    const begun = await pages.begin(device);
    const { text } = await pages.get(begun.path);
    t.true(text.includes('&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;'));
    const answer = await pages.post(begun.path, step('"><script>x</script>'));
    t.false(answer.text.includes('<script>x'));
  },
);

test.serial(
  'pages - are served with their own style and script, and 404 for the rest',
  async (t) => {
    const { pages } = t.context;
    const landing = await pages.get('/');
    t.is(landing.status, 200);
    const [style = ''] = /\/assets\/\w+\.css/.exec(landing.text) ?? [];
    const [script = ''] = /\/assets\/\w+\.js/.exec(landing.text) ?? [];
    t.is((await pages.get(style)).headers['content-type'], 'text/css; charset=utf-8');
    t.is((await pages.get(script)).headers['content-type'], 'text/javascript; charset=utf-8');
    t.is((await pages.get('/assets/other.js')).status, 404);
    t.is((await pages.get('/no-such-page')).status, 404);
    t.is((await pages.get('/sign-in/AAAAAAAAAAAAAAAAAAAAAA')).status, 404);
    t.is(landing.headers['x-content-type-options'], 'nosniff');
  },
);
