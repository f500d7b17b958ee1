import * as v from 'valibot';
import { ZtnaError, type EnrolAnswer, type EnrolRequest } from '../../../protocol/index.ts';
import { raiseRelayList } from '../relays/relay-list.ts';
import { addRelay } from '../relays/relay.ts';
import type { Services } from '../services.ts';
import type { Invite, Tx } from '../store/index.ts';
import { issueFor } from './certificate.ts';

/** What the invitation of a relay says of it: `isControl` that a control plane may join there, too. */
export const relayInviteDetails = v.strictObject({ url: v.string(), isControl: v.boolean() });
export type RelayInviteDetails = v.InferOutput<typeof relayInviteDetails>;

/**
 * Enrols a data plane. Also one that may have a control plane is listed without until that has started: else a code for
 * both would draw control channels to where nobody answers. What it holds afterwards is a certificate for the host of its own address: it can sign nothing
 * that anyone believes. Throws ERR_CONFIG_EXISTS when its name or address was taken meanwhile.
 */
export async function enrolRelay(
  services: Services,
  tx: Tx,
  invite: Invite,
  request: EnrolRequest,
  address: string,
): Promise<EnrolAnswer> {
  const { authority, clock, audit } = services;
  const details = v.safeParse(relayInviteDetails, JSON.parse(invite.detailsJson));
  if (!details.success) throw new ZtnaError('ERR_IDENTITY_CODE_REFUSED', { reason: 'code_kind' });
  const { url, isControl } = details.output;
  refuseOtherKind(request.relay, isControl);
  const relay = await addRelay(tx, {
    name: invite.subject,
    url,
    isControl,
    signingKey: request.signingKey,
    nowMs: clock.nowMs(),
  });
  const holder = { role: 'data-plane', id: relay.id, url } as const;
  const certificate = await issueFor(authority, clock, holder, request.certificateRequest);
  await tx
    .updateTable('relays')
    .set({
      certificateSerial: certificate.serial,
      certificateNotAfterMs: certificate.notAfterMs,
    })
    .where('id', '=', relay.id)
    .execute();
  await raiseRelayList(services, tx);
  await audit.append(
    {
      actor: `relay:${relay.id}`,
      action: 'relay.enrol',
      subject: relay.id,
      outcome: 'ok',
      ref: invite.id,
      details: { name: relay.name, url, isControl, hostname: request.hostname, address },
    },
    tx,
  );
  return {
    role: 'data-plane',
    id: relay.id,
    name: relay.name,
    url,
    certificate: certificate.pem,
    bundle: services.bundle.statement,
  };
}

/** A code that is used for what it was not made leaves a relay behind that is neither; refused, it can still be used. */
function refuseOtherKind(wanted: EnrolRequest['relay'], isControl: boolean): void {
  if (wanted === undefined || (wanted === 'control-plane') === isControl) return;
  throw new ZtnaError('ERR_IDENTITY_CODE_REFUSED', {
    reason: 'code_kind',
    hint: isControl
      ? 'it is for a relay with a control plane: use it with ztna-relay init --join - --store URL'
      : 'it is for a data plane alone: use it with ztna-relay run --data-plane --enroll -',
  });
}
