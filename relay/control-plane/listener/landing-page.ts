import type { IncomingMessage, ServerResponse } from 'node:http';

const page = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Private applications</title>
<meta name="viewport" content="width=device-width, initial-scale=1"></head>
<body>
<h1>Private applications</h1>
<p>This address serves the <code>ztna</code> program. Ask your administrator for an enrolment code, then run:</p>
<pre>ztna enroll -
ztna connect APP</pre>
</body>
</html>
`;

/** Nothing may be loaded, framed or sent anywhere. */
const headers = {
  'content-security-policy':
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
  'strict-transport-security': 'max-age=31536000',
};

/** Answers a browser: one page, and 404 for everything else. */
export function handleBrowser(request: IncomingMessage, response: ServerResponse): void {
  const isPage = request.url === '/' && (request.method === 'GET' || request.method === 'HEAD');
  response.writeHead(isPage ? 200 : 404, {
    ...headers,
    'content-type': isPage ? 'text/html; charset=utf-8' : 'text/plain; charset=utf-8',
    connection: 'close',
  });
  response.end(isPage ? page : 'not found\n');
}
