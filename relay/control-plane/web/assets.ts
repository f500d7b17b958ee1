import { createHash } from 'node:crypto';
import { reply, type WebRoute } from './request.ts';
import { script } from './script.ts';
import { style } from './style.ts';

const prefix = '/assets/';

function pathOf(text: string, extension: string): string {
  const digest = createHash('sha256').update(text).digest('hex').slice(0, 16);
  return `${prefix}${digest}.${extension}`;
}

/** They name their own content, so a browser may keep them. */
export const stylePath = pathOf(style, 'css');
export const scriptPath = pathOf(script, 'js');

const assets = new Map([
  [stylePath, { type: 'text/css; charset=utf-8', text: style }],
  [scriptPath, { type: 'text/javascript; charset=utf-8', text: script }],
]);

export const assetRoute: WebRoute = {
  prefix,
  answer: (_services, { request, response, url }) => {
    const asset = assets.get(url.pathname);
    const isRead = request.method === 'GET' || request.method === 'HEAD';
    if (!asset || !isRead) reply(response, 404, 'text/plain; charset=utf-8', 'not found\n');
    else {
      const headers = { 'cache-control': 'public, max-age=31536000, immutable' };
      reply(response, 200, asset.type, asset.text, headers);
    }
    return Promise.resolve();
  },
};
