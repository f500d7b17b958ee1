export {
  addConnector,
  addDevice,
  defaultMaxDevicesPerUser,
  type NewConnector,
  type NewDevice,
} from './device.ts';
export { claimInvite, createInvite, findInvite, type NewInvite } from './invite.ts';
export { readRenewalClaim, verifyEnrolmentProof, verifyRenewalProof } from './proof.ts';
export { checkNoiseKey, checkSigningKey } from './public-key.ts';
