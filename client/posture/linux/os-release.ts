import { linesOf } from '../run-tool.ts';

/** The version of the distribution by /etc/os-release: `12`, `24.04`; empty where it has none. */
export function parseOsRelease(text: string | undefined): string {
  for (const line of linesOf(text ?? '')) {
    const version = /^VERSION_ID=(["']?)([\w.+~-]{1,64})\1$/.exec(line)?.[2];
    if (version !== undefined) return version;
  }
  return '';
}
