import type { Authority } from '../authority/index.ts';
import type { Services } from '../services.ts';
import { raiseCounter, readCounter, readMeta, writeMeta, type Store } from '../store/index.ts';

/** A bundle that was signed longer ago than half of this is signed anew. */
const bundleLifeMs = 365 * 86_400_000;

/** The signed word on which keys count, and its version. */
export interface SignedBundle {
  readonly statement: string;
  readonly version: number;
}

/**
 * The bundle in the store. A newer one is signed and kept when that one is half over, when there is none, or when
 * there has been a later one that the store has lost.
 */
export async function ensureBundle(
  store: Store,
  authority: Authority,
  clock: { nowMs(): number },
): Promise<SignedBundle> {
  const kept = await readMeta(store.db, 'bundle');
  if (kept !== undefined) {
    const { version, statement, notAfterMs } = JSON.parse(kept) as SignedBundle & {
      readonly notAfterMs: number;
    };
    const isYoung = notAfterMs - clock.nowMs() > bundleLifeMs / 2;
    const isNewest = version === (await readCounter(store.db, 'bundleVersion'));
    if ((isYoung && isNewest) || !authority.hasRoot) return { version, statement };
  }
  return store.write(async (tx) => {
    const version = await raiseCounter(tx, 'bundleVersion');
    const notAfterMs = clock.nowMs() + bundleLifeMs;
    const statement = authority.signBundle({ version, notAfterMs });
    await writeMeta(tx, 'bundle', JSON.stringify({ version, statement, notAfterMs }));
    store.announce(tx, 'bundle');
    return { version, statement };
  });
}

/** Takes the bundle in the store, where another control plane put a newer one. */
export async function refreshBundle(services: Services): Promise<void> {
  const kept = await readMeta(services.store.db, 'bundle');
  if (kept === undefined) return;
  const { version, statement } = JSON.parse(kept) as SignedBundle;
  useBundle(services, { version, statement });
}

function useBundle(services: Services, bundle: SignedBundle): boolean {
  if (bundle.version <= services.bundle.version) return false;
  services.bundle = bundle; // in one turn with the sends: who registers later is welcomed with it
  for (const peer of services.peers.all()) {
    peer.send({ type: 'bundle', statement: bundle.statement });
  }
  services.logger.info('bundle_renewed', { version: bundle.version });
  return true;
}

/** Signs the bundle anew when it is due, and then tells everyone who has a channel. Answers whether it was. */
export async function renewBundle(
  services: Services,
  clock: { nowMs(): number } = services.clock,
): Promise<boolean> {
  const { store, authority, audit } = services;
  const bundle = await ensureBundle(store, authority, clock);
  if (!useBundle(services, bundle)) return false;
  await audit.append({
    actor: 'system',
    action: 'bundle.renew',
    subject: `version ${String(bundle.version)}`,
    outcome: 'ok',
  });
  return true;
}
