import type { Authority, IssuedCertificate } from '../authority/index.ts';
import type { ServerClock } from '../time/control-clock.ts';

const dayMs = 86_400_000;

/** How long certificates live; each is renewed at half of it. */
export const certificateLifeMs = {
  device: dayMs,
  connector: dayMs,
  'data-plane': 90 * dayMs,
  'control-plane': 90 * dayMs,
} as const;

/** A certificate that ended may still be renewed for this long by the key that never left. */
export const renewableForMs = 30 * dayMs;

/** The host of the relay's URL, as certificates name it. */
export function hostOf(url: string): string {
  return new URL(url).hostname.replace(/^\[|\]$/g, '');
}

/** Issues a certificate for a verified request of an enrolled identity. */
export function issueFor(
  authority: Authority,
  clock: Pick<ServerClock, 'nowMs'>,
  holder: {
    readonly role: 'device' | 'connector' | 'data-plane';
    readonly id: string;
    readonly url: string;
  },
  requestPem: string,
): Promise<IssuedCertificate> {
  const { role, id, url } = holder;
  return authority.issueFromRequest(requestPem, {
    role,
    id,
    ...(role === 'data-plane' ? { hosts: [hostOf(url)] } : {}),
    lifeMs: certificateLifeMs[role],
    nowMs: clock.nowMs(),
  });
}
