import { createHash, randomBytes } from 'node:crypto';
import anyTest, { type TestFn } from 'ava';
import type { Browser } from 'playwright-core';
import { enrol } from '../../../protocol/host/index.ts';
import { parseEnrolmentCode } from '../../../protocol/index.ts';
import type { OidcServer } from '../../support/oidc-server.ts';
import { providerFor, settingsOf } from '../../relay/control-plane/identity/oidc/oidc-rig.ts';
import { PageRig } from '../../relay/control-plane/web/page-rig.ts';
import { missingBrowser, openBrowser, openPage } from './browser.ts';
import { Command } from './command.ts';

interface Context {
  pages: PageRig;
  server: OidcServer;
  browser: Browser;
  command: Command;
}
const all = anyTest as TestFn<Context>;
const missing = missingBrowser();
const test = missing === undefined ? all.serial : all.skip;

if (missing === undefined) {
  all.before(async (t) => {
    // At another site than the provider, as it is everywhere else: browsers keep cookies back by that.
    t.context.pages = await PageRig.start({ enrolmentMode: 'sso' }, '127.0.0.1');
    t.context.server = await providerFor(t.context.pages.rig);
    await t.context.pages.rig.admin('provider.add', settingsOf(t.context.server));
    t.context.browser = await openBrowser();
    t.context.command = new Command();
    await t.context.command.listen();
  });
  all.after.always(async (t) => {
    await (t.context.browser as Browser | undefined)?.close();
    (t.context.command as Command | undefined)?.stop();
    await (t.context.server as OidcServer | undefined)?.stop();
    await (t.context.pages as PageRig | undefined)?.stop();
  });
} else {
  all.skip(`pages in a browser: ${missing}`, (t) => {
    t.fail();
  });
}

test('provider - a real browser enrols a machine, shows the account and signs in again, from another site and back', async (t) => {
  const { pages, browser, command } = t.context;
  const { page, context, said } = await openPage(browser);
  const verifier = randomBytes(32).toString('base64url');
  const query = new URLSearchParams({
    challenge: createHash('sha256').update(verifier).digest('base64url'),
    port: String(command.port),
    state: 'a-state-of-the-command',
  });
  await page.goto(`${pages.rig.url}/enrol?${query.toString()}`);
  await page.getByRole('link', { name: 'Continue with The test directory' }).click();
  const enrolled = await command.visit(page);
  t.is(enrolled.searchParams.get('state'), 'a-state-of-the-command');
  const { identity, answer } = await enrol({
    code: parseEnrolmentCode(enrolled.searchParams.get('code') ?? ''),
    ...{ hostname: 'my-laptop', platform: 'linux', password: null, expectRole: 'device' },
    verifier,
  });
  t.like(answer, { user: 'alice@example.com', signedIn: true });

  await page.goto(`${pages.rig.url}/account`);
  await page.getByRole('link', { name: 'Continue with The test directory' }).click();
  await page.getByRole('heading', { name: 'Your account' }).waitFor();
  await page.getByText('my-laptop', { exact: true }).waitFor();
  await page.getByText('They are kept by your identity provider').waitFor();

  const device = await pages.rig.connectDevice(identity);
  const begun = await pages.begin(device, command.port);
  await page.goto(pages.rig.url + begun.path);
  await page.getByRole('link', { name: 'Continue with The test directory' }).click();
  const ticket = (await command.visit(page)).searchParams.get('ticket');
  t.is((await pages.finish(device, begun, ticket)).user, 'alice@example.com');
  t.deepEqual(said, []);
  await context.close();
});
