import test from 'ava';
import { enrolByBrowser } from '../../../client/sign-in/enrol-by-browser.ts';
import { encodeEnrolmentCode } from '../../../protocol/index.ts';

test('enrolByBrowser - takes no code of another relay than the one that was named', async (t) => {
  const code = encodeEnrolmentCode({
    rootId: 'ab'.repeat(32),
    secret: Buffer.alloc(16, 1),
    url: 'https://elsewhere.example.com:8443',
  });
  const error = await t.throwsAsync(
    enrolByBrowser({
      origin: 'https://relay.example.com:8443',
      browser: undefined,
      invite: () => undefined,
      askCode: () => Promise.resolve(code),
    }),
    { code: 'ERR_IDENTITY_CODE_REFUSED' },
  );
  t.regex(error.message, /another relay, https:\/\/elsewhere/);
});
