import { appendFileSync } from 'node:fs';
import { personHeader } from './oidc-server.ts';
import { ScriptedBrowser } from './scripted-browser.ts';

/**
 * A program for BROWSER: visits the page that it is given as its one argument, takes the first provider that is offered, and is
 * signed in there as TEST_PERSON. Where that ends is written to TEST_BROWSER_LOG, with how many arguments it got.
 */
const { TEST_PERSON: person = '', TEST_BROWSER_LOG: log = '' } = process.env;
const [url = ''] = process.argv.slice(2);
const browser = new ScriptedBrowser({ [personHeader]: person });
const page = await browser.follow(url);
const choice = /href="(\/oidc\/[^"]*)"/.exec(page.text)?.[1];
const end =
  choice === undefined
    ? page
    : await browser.follow(new URL(choice.replaceAll('&amp;', '&'), page.url));
appendFileSync(log, `${process.argv.length - 2} ${end.url.host} ${end.status}\n`);
