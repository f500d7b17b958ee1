import type { Services } from '../services.ts';
import { replyPage } from './layout.ts';
import { markup } from './markup.ts';
import { pageRoute } from './page-route.ts';
import type { WebRequest, WebRoute } from './request.ts';

/** Everything that no other route answers: the page of this deployment, and what is not there. */
export const landingRoute: WebRoute = pageRoute('/', (services, web) => {
  const isRead = web.request.method === 'GET' || web.request.method === 'HEAD';
  if (isRead && web.url.pathname === '/') replyLanding(services, web);
  else {
    replyPage(services, web, 404, {
      title: 'Nothing here',
      body: markup`<section class="card">
<h1>Nothing here</h1>
<p>There is no such page. <a href="/">Begin here</a>.</p>
</section>`,
    });
  }
  return Promise.resolve();
});

function replyLanding(services: Services, web: WebRequest): void {
  const { origin } = new URL(services.settings.url);
  const isOpen = (services.settings.enrolmentMode ?? 'invite') !== 'invite';
  replyPage(services, web, 200, {
    title: 'Private applications',
    body: markup`<section class="card">
<h1>Private applications</h1>
<p>This address leads to applications that are on no public network. They are reached with the
<code>ztna</code> program on a machine that is enrolled here.</p>
<h2>Enrol this machine</h2>
${
  isOpen
    ? markup`<p>Sign in once; your browser opens by itself:</p>
<pre tabindex="0"><code>ztna enroll ${origin}</code></pre>`
    : markup`<p>Ask your administrator for a one-time code, then:</p>
<pre tabindex="0"><code>ztna enroll -</code></pre>`
}
<h2>Then</h2>
<pre tabindex="0"><code>ztna login
ztna apps
ztna connect APP</code></pre>
<p class="actions"><a class="button" href="/account">Your devices and sign-in methods</a></p>
<p class="note">A laptop is lost? <a href="/account">Revoke it</a> at any hour.</p>
</section>`,
  });
}
