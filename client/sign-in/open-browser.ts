import { spawn } from 'node:child_process';
import { canShow } from '../ask.ts';
import { withoutSecrets } from '../environment.ts';

/** The program that shows a page to the person, with what stands before the page's address. */
export interface Browser {
  readonly file: string;
  readonly args: readonly string[];
}

/**
 * The browser of this desktop: the program that BROWSER names, else the platform's own way. Undefined where there is none to be
 * seen, as over SSH, or where BROWSER is `none`.
 */
export function findBrowser(
  env: NodeJS.ProcessEnv = process.env,
  platform: NodeJS.Platform = process.platform,
): Browser | undefined {
  const own = env['BROWSER'];
  if (own === 'none') return undefined;
  if (own !== undefined && own !== '') return { file: own, args: [] };
  if (platform === 'win32') {
    return {
      file: 'C:\\Windows\\System32\\rundll32.exe',
      args: ['url.dll,FileProtocolHandler'],
    };
  }
  // What a remote shell starts opens on a screen that the person is not at.
  const isRemote = env['SSH_CONNECTION'] !== undefined;
  if (platform === 'darwin') return isRemote ? undefined : { file: '/usr/bin/open', args: [] };
  const hasScreen = Boolean(env['DISPLAY']) || Boolean(env['WAYLAND_DISPLAY']);
  return hasScreen ? { file: '/usr/bin/xdg-open', args: [] } : undefined;
}

/**
 * Has the browser show a page: the address is its one more argument, no shell sees it, and it gets neither our standard streams nor
 * what opens this machine's keys. Answers whether it could be started. Only https addresses are shown.
 */
export async function openInBrowser({ file, args }: Browser, url: string): Promise<boolean> {
  if (!isWebAddress(url)) return false;
  const child = spawn(file, [...args, url], {
    stdio: 'ignore',
    detached: true,
    env: withoutSecrets(process.env),
  });
  return new Promise((resolve) => {
    child.once('error', () => {
      resolve(false);
    });
    child.once('spawn', () => {
      child.unref();
      resolve(true);
    });
  });
}

/** Has this machine's browser show a page, where a person sits at this terminal. Answers whether it was started. */
export async function showPage(url: string): Promise<boolean> {
  const browser = canShow() ? findBrowser() : undefined;
  return browser !== undefined && openInBrowser(browser, url);
}

/** True for the address of a page as the URL standard writes it: nothing in it can be taken for an option. */
export function isWebAddress(url: string): boolean {
  return URL.canParse(url) && new URL(url).href === url && url.startsWith('https://');
}
