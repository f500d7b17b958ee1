import { beginSignIn } from '../identity/index.ts';
import { refuseClosedEnrolment } from '../enrolment/browser-sign-in.ts';
import type { Services } from '../services.ts';
import { goTo, replyPage } from './layout.ts';
import { markup } from './markup.ts';
import { pageRoute } from './page-route.ts';
import { refuseOnPage } from './refuse.ts';
import type { WebRequest, WebRoute } from './request.ts';

/**
 * `/enrol?challenge=C[&port=PORT&state=S]`: where `ztna enroll https://HOST` sends a person to sign in. The browser's TLS vouches for
 * the address that the person typed; what the command gets in the end names the root that it pins.
 */
export const enrolRoute: WebRoute = pageRoute('/enrol', async (services, web) => {
  const asked = readAsked(web.url.searchParams);
  if (web.url.pathname !== '/enrol' || !asked) {
    replyHow(services, web);
    return;
  }
  try {
    refuseClosedEnrolment(services);
  } catch (error) {
    await refuseOnPage(services, web, { purpose: 'enrolment', deviceId: null }, error);
    throw error;
  }
  const signIn = await services.store.write((tx) =>
    beginSignIn(tx, {
      purpose: 'enrolment',
      deviceId: null,
      provider: null,
      challenge: asked.challenge,
      loopbackPort: asked.port,
      loopbackState: asked.state,
      isStepUp: false,
      address: web.address,
      nowMs: services.clock.nowMs(),
    }),
  );
  goTo(web, `/sign-in/${signIn.id}`);
});

/** Undefined for what no command asks. */
function readAsked(query: URLSearchParams) {
  const challenge = query.get('challenge') ?? '';
  const state = query.get('state');
  const portText = query.get('port');
  const port = portText === null ? null : Number(portText);
  const isPort = port === null || (/^\d{1,5}$/.test(portText ?? '') && port > 0 && port <= 65_535);
  const isState = port === null || /^[A-Za-z0-9_-]{16,128}$/.test(state ?? '');
  if (!/^[A-Za-z0-9_-]{43}$/.test(challenge) || !isPort || !isState) return undefined;
  return { challenge, port, state };
}

function replyHow(services: Services, web: WebRequest): void {
  const { origin } = new URL(services.settings.url);
  replyPage(services, web, 400, {
    title: 'Enrol a machine',
    body: markup`<section class="card">
<h1>Enrol a machine</h1>
<p>Begin on the machine itself; it opens this page with what belongs to it:</p>
<pre tabindex="0"><code>ztna enroll ${origin}</code></pre>
</section>`,
  });
}
