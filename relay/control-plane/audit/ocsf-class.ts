import type { ExportedRecord } from './export.ts';

/** The event classes of OCSF that records are told as; a class belongs to the category of its thousands. */
export const ocsfClass = {
  base: 0,
  detectionFinding: 2004,
  accountChange: 3001,
  authentication: 3002,
  authorizeSession: 3003,
  entityManagement: 3004,
  groupManagement: 3006,
  networkActivity: 4001,
  applicationLifecycle: 6002,
} as const;
export type OcsfClass = (typeof ocsfClass)[keyof typeof ocsfClass];

export interface OcsfKind {
  readonly classUid: OcsfClass;
  /** As the class numbers them; 99 is "Other", and then the name of the activity is our action. */
  readonly activityId: number;
}

const other = 99;
const { accountChange, authentication, authorizeSession, entityManagement } = ocsfClass;
const { groupManagement, networkActivity, applicationLifecycle, detectionFinding } = ocsfClass;

const activities: Readonly<Record<number, Readonly<Record<string, number>>>> = {
  [authentication]: {
    'session.sign_in': 1, // Logon
    'session.sign_out': 2, // Logoff
    'session.end': 2,
    'session.revoke': 2,
    'account.sign_in': 1,
    'account.sign_out': 2,
    'enrolment.sign_in': 1,
  },
  [authorizeSession]: { 'decision.made': 1 }, // Assign Privileges
  [networkActivity]: {
    'tunnel.open': 1, // Open
    'tunnel.end': 2, // Close
    'tunnel.cut': 3, // Reset
    'tunnel.revoke': 3,
    'tunnel.bytes': 6, // Traffic
    'tunnel.suspend': other,
    'tunnel.detach': other,
    'tunnel.resume': other,
  },
  [accountChange]: {
    'user.add': 1, // Create
    'user.enable': 2, // Enable
    'user.disable': 5, // Disable
    'user.remove': 6, // Delete
    'user.set': other,
    'user.link': other,
    'user.groups': other,
    'user.revoke': other,
    'otp.begin': other,
    'otp.confirm': 10, // MFA Factor Enable
    'otp.remove': 11, // MFA Factor Disable
    'passkey.add': 10,
    'passkey.remove': 11,
    'recovery.make': other,
  },
  [groupManagement]: {
    'group.member.add': 3, // Add User
    'group.member.remove': 4, // Remove User
  },
  [applicationLifecycle]: {
    'relay.start': 3, // Start
    'relay.stop': 4, // Stop
  },
  [detectionFinding]: { 'signal.receive': 1, 'device.compliance': 1 }, // Create
};

/** What is managed: the first word of an action, and what its verbs do. */
const managed: ReadonlySet<string> = new Set([
  ...['device', 'connector', 'relay', 'control_plane', 'site', 'app', 'group', 'policy', 'invite'],
  ...['certificate', 'bundle', 'audit', 'store', 'signal', 'provider'],
  ...['service', 'scim_token'],
]);
const create = new Set(['add', 'enrol', 'join', 'user', 'connector', 'relay']); // `invite.user` makes an invitation
const remove = new Set(['remove', 'revoke', 'prune']);

const kinds: ReadonlyMap<string, OcsfKind> = new Map(
  Object.entries(activities).flatMap(([classUid, ofClass]) =>
    Object.entries(ofClass).map(([action, activityId]) => [
      action,
      { classUid: Number(classUid) as OcsfClass, activityId },
    ]),
  ),
);

/** These tell a refusal themselves, by their status. */
const ownRefusals: ReadonlySet<number> = new Set([authentication, authorizeSession, accountChange]);

/** Which class and activity a record is told as. A refusal that no administrator met is a finding. */
export function ocsfKindOf(record: Pick<ExportedRecord, 'action' | 'actor' | 'outcome'>): OcsfKind {
  const kind = kindOfAction(record.action);
  const isFinding =
    record.outcome === 'refused' &&
    !record.actor.startsWith('uid:') &&
    !ownRefusals.has(kind.classUid);
  return isFinding ? { classUid: detectionFinding, activityId: 1 } : kind;
}

function kindOfAction(action: string): OcsfKind {
  const known = kinds.get(action);
  if (known) return known;
  const [area = '', verb = ''] = action.split('.');
  if (!managed.has(area)) return { classUid: ocsfClass.base, activityId: other };
  const activityId = create.has(verb) ? 1 : remove.has(verb) ? 4 : 3; // Create, Delete, Update
  return { classUid: entityManagement, activityId };
}
