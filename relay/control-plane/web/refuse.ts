import { toZtnaError } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import type { SignIn } from '../store/index.ts';
import type { WebRequest } from './request.ts';

const actions = {
  session: 'session.sign_in',
  enrolment: 'device.enrol',
  account: 'account.sign_in',
} as const;

/** Puts on record that a sign-in on a page was refused; `user` is whom it was for, as far as somebody said. */
export async function refuseOnPage(
  services: Services,
  { address }: WebRequest,
  { purpose, deviceId }: Pick<SignIn, 'purpose' | 'deviceId'>,
  error: unknown,
  name: string | null = null,
): Promise<void> {
  const { store, risk, refusals } = services;
  const { code, reason } = toZtnaError(error);
  if (code === 'ERR_IDENTITY_OTP_NEEDED') return; // a step of signing in
  const known = name === null ? undefined : await findNamed(store, name);
  if (known && deviceId !== null) {
    const { id: user } = known;
    risk.note({ kind: 'sign_in_refused', user, device: deviceId, app: null, address });
  }
  await refusals.record(address, {
    actor: deviceId === null ? `address:${address}` : `device:${deviceId}`,
    action: actions[purpose],
    subject: deviceId ?? address,
    user: known ? name : null,
    details: { code, reason: reason ?? null, address, page: true },
  });
}

function findNamed({ db }: Services['store'], name: string) {
  return db.selectFrom('users').select('id').where('name', '=', name).executeTakeFirst();
}
