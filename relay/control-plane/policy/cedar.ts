import { createRequire } from 'node:module';
import type * as CedarModule from '@cedar-policy/cedar-wasm/nodejs';

export type Cedar = typeof CedarModule;

const require = createRequire(import.meta.url);
const moduleName = '@cedar-policy/cedar-wasm/nodejs';

/**
 * A fresh instance of Cedar. After a trap (a stack or memory fault inside) every further call on an instance
 * throws too, and what was prepared in it is lost: take a new one.
 */
export function instantiateCedar(): Cedar {
  // eslint-disable-next-line @typescript-eslint/no-dynamic-delete -- the only way to load the module anew
  delete require.cache[require.resolve(moduleName)];
  return require(moduleName) as Cedar;
}

let kept: Cedar | undefined;

/**
 * Keeps Cedar's compiled code, of which the threads of a process share one copy for as long as any of them has an
 * instance: what one of them compiled, the next need not. Never throws.
 */
export function keepCedarCode(): void {
  try {
    kept ??= instantiateCedar();
  } catch {
    // Whoever needs an instance is told.
  }
}
