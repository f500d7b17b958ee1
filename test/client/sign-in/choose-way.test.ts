import test from 'ava';
import {
  chooseWay,
  mustSay,
  type AskedWay,
  type SignInWay,
} from '../../../client/sign-in/choose-way.ts';

const corp = { name: 'corp', title: 'Corp', hasDeviceCode: true };
const guests = { name: 'guests', title: 'Guests', hasDeviceCode: false };
const open: AskedWay = { provider: undefined, isDeviceCode: false, isByPage: undefined };
const noQuestion = (): Promise<string> => Promise.reject(new Error('nobody is there'));

const page = (provider: string | null): SignInWay => ({
  kind: 'elsewhere',
  method: 'browser',
  provider,
});
const code = (provider: string): SignInWay => ({
  kind: 'elsewhere',
  method: 'device_code',
  provider,
});

const cases: readonly [
  what: string,
  asked: Partial<AskedWay>,
  known: { isLocal: boolean; providers: (typeof corp)[] },
  last: string | undefined,
  way: SignInWay,
][] = [
  [
    'the password of a relay without providers',
    {},
    { isLocal: true, providers: [] },
    undefined,
    { kind: 'password' },
  ],
  ['the only provider', {}, { isLocal: false, providers: [corp] }, undefined, page('corp')],
  [
    'where it was the last time',
    {},
    { isLocal: true, providers: [corp, guests] },
    'guests',
    page('guests'),
  ],
  [
    'the password, as the last time',
    {},
    { isLocal: true, providers: [corp] },
    'local',
    { kind: 'password' },
  ],
  [
    'the provider that was named',
    { provider: 'corp' },
    { isLocal: true, providers: [corp] },
    'local',
    page('corp'),
  ],
  [
    'the password where local was named',
    { provider: 'local' },
    { isLocal: true, providers: [corp] },
    'corp',
    { kind: 'password' },
  ],
  [
    'the page for a choice there',
    { isByPage: true },
    { isLocal: true, providers: [corp] },
    undefined,
    page(null),
  ],
  [
    'the page of the only provider',
    { isByPage: true },
    { isLocal: false, providers: [corp] },
    undefined,
    page('corp'),
  ],
  [
    'the only device code',
    { isDeviceCode: true },
    { isLocal: true, providers: [corp, guests] },
    undefined,
    code('corp'),
  ],
];

for (const [what, asked, known, last, way] of cases) {
  test(`chooseWay - takes ${what}`, async (t) => {
    t.deepEqual(await chooseWay({ ...open, ...asked }, known, last, noQuestion), way);
  });
}

test('chooseWay - asks where several are left, and takes only what there is', async (t) => {
  const known = { isLocal: true, providers: [corp, guests] };
  const asked: (readonly string[])[] = [];
  const way = await chooseWay(open, known, 'gone', (names) => {
    asked.push(names);
    return Promise.resolve('guests');
  });
  t.deepEqual(way, page('guests'));
  t.deepEqual(asked, [['corp', 'guests', 'local']]);
  await t.throwsAsync(
    chooseWay(open, known, undefined, () => Promise.resolve('nowhere')),
    { code: 'ERR_CONFIG_USAGE' },
  );
});

for (const [what, asked, hint] of [
  ['a provider that there is not', { provider: 'nowhere' }, /it has: corp, guests, local/],
  [
    'the device code of a provider without',
    { provider: 'guests', isDeviceCode: true },
    /--no-browser/,
  ],
] as const) {
  test(`chooseWay - refuses ${what}, and says what there is`, async (t) => {
    const known = { isLocal: true, providers: [corp, guests] };
    const error = await t.throwsAsync<Error & { hint: string }>(
      chooseWay({ ...open, ...asked }, known, undefined, noQuestion),
      { code: 'ERR_CONFIG_USAGE' },
    );
    t.regex(error.hint, hint);
  });
}

test('mustSay - names the command for every way', (t) => {
  t.is(
    mustSay(['corp', 'local']).hint,
    'say it: ztna login --provider corp, or ztna login --password-stdin',
  );
});
