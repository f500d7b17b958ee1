import anyTest, { type TestFn } from 'ava';
import type { Browser, Page } from 'playwright-core';
import { password } from '../../relay/control-plane/service/rig.ts';
import { PageRig } from '../../relay/control-plane/web/page-rig.ts';
import { addAuthenticator, missingBrowser, openBrowser, openPage } from './browser.ts';
import { Command } from './command.ts';

interface Context {
  pages: PageRig;
  browser: Browser;
  command: Command;
}
const all = anyTest as TestFn<Context>;
const missing = missingBrowser();
const test = missing === undefined ? all.serial : all.skip;
if (missing !== undefined) {
  all.skip(`pages in a browser: ${missing}`, (t) => {
    t.fail();
  });
}

if (missing === undefined) {
  all.before(async (t) => {
    t.context.pages = await PageRig.start();
    t.context.browser = await openBrowser();
    t.context.command = new Command();
    await t.context.command.listen();
  });
  all.after.always(async (t) => {
    await (t.context.browser as Browser | undefined)?.close();
    (t.context.command as Command | undefined)?.stop();
    await (t.context.pages as PageRig | undefined)?.stop();
  });
}

async function typePassword(page: Page, user: string): Promise<void> {
  await page.getByLabel('User name').fill(user);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Continue' }).click();
}

test('passkey - one is added on the account page, signs a device in, and is removed', async (t) => {
  const { pages, browser, command } = t.context;
  const device = await pages.rig.device('alice');
  const { page, context, said } = await openPage(browser);
  await addAuthenticator(page);
  await page.goto(pages.rig.url + (await pages.accountPath(device)));
  await typePassword(page, 'alice');
  await page.getByRole('heading', { name: 'Your account' }).waitFor();
  await page.getByLabel('Name').fill('My laptop');
  await page.getByRole('button', { name: 'Add', exact: true }).click();
  await page.getByText('The passkey is added.').waitFor();
  const [row] = await pages.rig.plane.services.store.db
    .selectFrom('passkeys')
    .selectAll()
    .execute();
  t.like(row, { name: 'My laptop' });

  const begun = await pages.begin(device, command.port);
  await page.goto(pages.rig.url + begun.path);
  await page.getByRole('button', { name: 'Use a passkey' }).click();
  const visit = await command.visit(page);
  const session = await pages.finish(device, begun, visit.searchParams.get('ticket'));
  t.like(session, { user: 'alice', methods: ['passkey'] });

  // Signed in by password alone, nobody takes the passkey away.
  await page.goto(`${pages.rig.url}/account`);
  await page.getByText('sign in with all that you have').waitFor();
  t.is(await page.getByText('Remove', { exact: true }).count(), 0);
  await page.getByRole('link', { name: 'Sign in again' }).click();
  await page.getByRole('button', { name: 'Use a passkey' }).click();
  await page.getByRole('heading', { name: 'Your account' }).waitFor();
  await page.getByText('Remove', { exact: true }).click();
  await page.getByRole('button', { name: 'Remove My laptop' }).click();
  await page.getByText('The passkey is removed.').waitFor();
  t.deepEqual(said, []);
  await context.close();
});

test('passkey - one of somebody else, of a copy or of a removed user signs nobody in', async (t) => {
  const { pages, browser, command } = t.context;
  const { store } = pages.rig.plane.services;
  const device = await pages.rig.device('berta');
  const mallory = await pages.rig.device('mallory');
  const { page, context } = await openPage(browser);
  await addAuthenticator(page);
  await page.goto(pages.rig.url + (await pages.accountPath(mallory)));
  await typePassword(page, 'mallory');
  await page.getByLabel('Name').fill('key');
  await page.getByRole('button', { name: 'Add', exact: true }).click();
  await page.getByText('The passkey is added.').waitFor();

  const begun = await pages.begin(device, command.port);
  const use = async () => {
    await page.goto(pages.rig.url + begun.path);
    await page.getByRole('button', { name: 'Use a passkey' }).click();
    await page.getByRole('alert').filter({ hasText: /./ }).waitFor();
  };
  await use();
  t.regex(await page.content(), /enrolled for somebody else/);

  await store.write((tx) => tx.updateTable('passkeys').set({ counter: 1_000 }).execute());
  await use();
  t.regex(await page.content(), /That passkey does not fit/);
  await store.write((tx) => tx.updateTable('passkeys').set({ counter: 0 }).execute());
  await pages.rig.admin('user.disable', { name: 'mallory' });
  await use();
  const reasons = (await pages.refusals('session.sign_in')).map(({ reason }) => reason);
  t.deepEqual(reasons, ['device_not_of_user', 'passkey_refused', 'user_not_active']);
  await context.close();
});

test('passkey - what one signed serves once, and not without its user', async (t) => {
  const { pages, browser, command } = t.context;
  const device = await pages.rig.device('carla');
  const { page, context } = await openPage(browser);
  const { cdp, authenticatorId } = await addAuthenticator(page);
  await page.goto(pages.rig.url + (await pages.accountPath(device)));
  await typePassword(page, 'carla');
  await page.getByLabel('Name').fill('key');
  await page.getByRole('button', { name: 'Add', exact: true }).click();
  await page.getByText('The passkey is added.').waitFor();

  const begun = await pages.begin(device, command.port);
  await page.goto(pages.rig.url + begun.path);
  const sent = page.waitForRequest(
    (request) => request.method() === 'POST' && request.url().endsWith(begun.path),
  );
  await page.getByRole('button', { name: 'Use a passkey' }).click();
  const form = Object.fromEntries(new URLSearchParams((await sent).postData() ?? ''));
  await command.visit(page);
  const other = await pages.begin(device, command.port);
  for (const path of [begun.path, other.path]) {
    t.true([403, 404].includes((await pages.post(path, form)).status), path);
  }
  // Also after another challenge was asked for.
  await pages.post(`${other.path}/passkey`, {});
  t.is((await pages.post(other.path, form)).status, 403);

  await cdp.send('WebAuthn.setUserVerified', { authenticatorId, isUserVerified: false });
  await page.goto(pages.rig.url + other.path);
  await page.getByRole('button', { name: 'Use a passkey' }).click();
  await page.getByText(/No passkey was used/).waitFor();
  await context.close();
});

test('sign-in page - is used by keyboard alone, at phone width and without a script', async (t) => {
  const { pages, browser, command } = t.context;
  const device = await pages.rig.device('dora');
  const viewport = { width: 390, height: 780 };
  const { page, context, said } = await openPage(browser, { viewport });
  const strangers: string[] = [];
  page.on('request', (request) => {
    const { hostname, protocol } = new URL(request.url());
    if (protocol !== 'data:' && hostname !== 'localhost') strangers.push(request.url());
  });
  const begun = await pages.begin(device, command.port);
  await page.goto(pages.rig.url + begun.path);
  const width = Number(await page.evaluate('document.documentElement.scrollWidth'));
  t.true(width <= viewport.width, `${width} px wide`);
  t.deepEqual(strangers, []);
  // The name of the device's user is there already, and the password has the focus.
  await page.keyboard.type(password);
  await page.keyboard.press('Enter');
  const visit = await command.visit(page);
  const ticket = visit.searchParams.get('ticket');
  t.is((await pages.finish(device, begun, ticket)).user, 'dora');
  t.deepEqual(said, []);
  await context.close();

  const plain = await openPage(browser, { javaScriptEnabled: false });
  const again = await pages.begin(device, command.port);
  await plain.page.goto(pages.rig.url + again.path);
  t.false(await plain.page.getByRole('button', { name: 'Use a passkey' }).isVisible());
  await plain.page.getByLabel('Password').fill(password);
  await plain.page.getByRole('button', { name: 'Continue' }).click();
  t.is((await command.visit(plain.page)).searchParams.get('sign_in'), again.signIn);
  await plain.context.close();
});
