import type { Authority } from '../authority/index.ts';
import type { Services } from '../services.ts';
import {
  raiseCounter,
  readCounter,
  readMeta,
  writeMeta,
  type Reader,
  type Store,
  type Tx,
} from '../store/index.ts';
import type { ControlPlaneKeys, ControlPlanes } from '../../../protocol/index.ts';

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
    const { members } = await readControlPlanes(authority, tx);
    return keepBundle(store, tx, authority, { version, notAfterMs, members });
  });
}

/** Signs a bundle and keeps it. */
async function keepBundle(
  store: Store,
  tx: Tx,
  authority: Authority,
  value: Parameters<Authority['signBundle']>[0],
): Promise<SignedBundle> {
  const { version, notAfterMs } = value;
  const statement = authority.signBundle(value);
  await writeMeta(tx, 'bundle', JSON.stringify({ version, statement, notAfterMs }));
  store.announce(tx, 'bundle');
  return { version, statement };
}

/** The root's word on which control planes there are; before there was a second, the first one alone. */
export async function readControlPlanes(
  authority: Authority,
  db: Reader | Tx,
): Promise<ControlPlanes> {
  const statement = await readMeta(db, 'controlPlanes');
  if (statement !== undefined) return authority.verifyControlPlanes(statement);
  return { version: 0, members: [authority.publicKeys('cp')], former: [] };
}

/** Makes these the control planes, and signs a bundle of their keys. Needs the root. */
export async function replaceControlPlanes(
  { store, authority, clock }: Pick<Services, 'store' | 'authority' | 'clock'>,
  tx: Tx,
  members: readonly ControlPlaneKeys[],
): Promise<SignedBundle> {
  const before = await readControlPlanes(authority, tx);
  const gone = before.members.flatMap(({ id, auditKey }) =>
    id === 'cp' || members.some((member) => member.id === id) ? [] : [{ id, auditKey }],
  );
  const planes: ControlPlanes = {
    version: before.version + 1,
    members: [...members],
    former: [...before.former, ...gone],
  };
  await writeMeta(tx, 'controlPlanes', authority.signControlPlanes(planes));
  return keepBundle(store, tx, authority, {
    version: await raiseCounter(tx, 'bundleVersion'),
    notAfterMs: clock.nowMs() + bundleLifeMs,
    members,
  });
}

/** Takes the bundle in the store, where another control plane put a newer one. */
export async function refreshBundle(services: Services): Promise<void> {
  const kept = await readMeta(services.store.db, 'bundle');
  if (kept === undefined) return;
  const { version, statement } = JSON.parse(kept) as SignedBundle;
  useBundle(services, { version, statement });
}

/** From here on this bundle counts, and everyone who has a channel here is told. Answers whether it is newer. */
export function useBundle(services: Services, bundle: SignedBundle): boolean {
  if (bundle.version <= services.bundle.version) return false;
  services.bundle = bundle; // in one turn with the sends: who registers later is welcomed with it
  for (const peer of services.peers.all()) {
    peer.send({ type: 'bundle', statement: bundle.statement });
  }
  services.onBundleChanged();
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
