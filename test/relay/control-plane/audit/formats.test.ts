import test from 'ava';
import { csvHeader, csvLine, ocsfEvent } from '../../../../relay/control-plane/audit/index.ts';
import { startMs } from '../fixture.ts';
import type { ExportedRecord } from '../../../../relay/control-plane/audit/index.ts';

function recordOf(changes: Partial<ExportedRecord>): ExportedRecord {
  return {
    writer: 'cp1',
    position: 7,
    atMs: startMs,
    actor: 'system',
    action: 'relay.start',
    subject: 'control-plane',
    outcome: 'ok',
    ref: null,
    user: null,
    app: null,
    details: {},
    previous: '0'.repeat(64),
    hash: '1'.repeat(64),
    ...changes,
  };
}

/** Reads RFC 4180 back, strictly: cells are quoted or hold no quote, comma or line break; lines end with CRLF. */
function parseCsv(text: string): string[][] {
  const lines: string[][] = [];
  let rest = text;
  let line: string[] = [];
  while (rest !== '') {
    const [whole, quoted, bare, end] =
      /^(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/.exec(rest) ?? [];
    if (whole === undefined) throw new Error(`no cell: ${rest.slice(0, 40)}`);
    line.push(quoted?.replaceAll('""', '"') ?? bare ?? '');
    if (end === '\r\n') {
      lines.push(line);
      line = [];
    }
    rest = rest.slice(whole.length);
  }
  return lines;
}

test('csvLine - is read back as it was, whatever is in a cell', (t) => {
  const hostile = ['a,b', '"quoted"', 'two\r\nlines', 'a"b,c\n', '', 'plain'];
  const text = hostile.map((subject) => csvLine(recordOf({ subject, details: { a: [subject] } })));
  const [header, ...rows] = parseCsv(csvHeader + text.join(''));
  const column = (row: string[], name: string) => row[header?.indexOf(name) ?? -1];
  t.deepEqual(
    rows.map((row) => column(row, 'subject')),
    hostile,
  );
  t.deepEqual(
    rows.map((row) => JSON.parse(column(row, 'details') ?? '') as unknown),
    hostile.map((subject) => ({ a: [subject] })),
  );
  t.is(column(rows[0] ?? [], 'ref'), '');
});

test('csvLine - holds no cell that a spreadsheet takes for a formula', (t) => {
  const formulas = ['=1+1', '+1', '-1', '@SUM(A1)', '\t=1', '\r=1', '=cmd|\'/c calc\'!A1,"x"'];
  for (const formula of formulas) {
    const changes = { actor: formula, subject: formula, ref: formula, user: formula, app: formula };
    const cells = parseCsv(csvLine(recordOf(changes))).flat();
    t.is(cells.filter((cell) => cell === `'${formula}`).length, 5, formula);
    t.deepEqual(
      cells.filter((cell) => /^[=+\-@\t\r]/.test(cell)),
      [],
    );
  }
});

/** What the schema requires of an event, and of each class; of each inner list at least one. */
const ofEvery = [
  ...['class_uid', 'category_uid', 'activity_id', 'type_uid', 'severity_id', 'time'],
  ...['metadata.version', 'metadata.product.vendor_name', 'metadata.product.name'],
  ...['metadata.product.version', 'status_id', 'actor.user.name', 'unmapped'],
];
const ofClass: Readonly<Record<number, readonly (string | readonly string[])[]>> = {
  0: [],
  2004: ['finding_info.uid', 'finding_info.title'],
  3001: ['user.name', 'user.uid'],
  3002: ['user.name', ['service.name', 'dst_endpoint']],
  3003: ['user.name', ['privileges.0', 'groups']],
  3004: [['entity.uid', 'entity.name']],
  3006: ['group.name', ['user.name', 'privileges']],
  4001: ['dst_endpoint.svc_name', 'connection_info.direction_id'],
  6002: ['app.name', 'app.vendor_name'],
};

function at(event: unknown, path: string): unknown {
  return path
    .split('.')
    .reduce<unknown>(
      (inner, name) => (inner as Record<string, unknown> | undefined)?.[name],
      event,
    );
}

/** Action and outcome, the class and the activity. `refused` by a stranger; changes by an administrator. */
const expected: readonly (readonly [string, ExportedRecord['outcome'], number, number])[] = [
  ['session.sign_in', 'ok', 3002, 1],
  ['session.sign_in', 'refused', 3002, 1],
  ['session.sign_out', 'ok', 3002, 2],
  ['session.end', 'ok', 3002, 2],
  ['session.revoke', 'ok', 3002, 2],
  ['decision.made', 'ok', 3003, 1],
  ['decision.made', 'refused', 3003, 1],
  ['tunnel.open', 'ok', 4001, 1],
  ['tunnel.end', 'ok', 4001, 2],
  ['tunnel.cut', 'ok', 4001, 3],
  ['tunnel.revoke', 'ok', 4001, 3],
  ['tunnel.bytes', 'ok', 4001, 6],
  ['tunnel.suspend', 'ok', 4001, 99],
  ['tunnel.detach', 'ok', 4001, 99],
  ['tunnel.resume', 'ok', 4001, 99],
  ['user.add', 'ok', 3001, 1],
  ['user.enable', 'ok', 3001, 2],
  ['user.disable', 'ok', 3001, 5],
  ['user.remove', 'ok', 3001, 6],
  ['user.set', 'ok', 3001, 99],
  ['user.revoke', 'ok', 3001, 99],
  ['otp.begin', 'ok', 3001, 99],
  ['otp.confirm', 'ok', 3001, 10],
  ['otp.confirm', 'refused', 3001, 10],
  ['otp.remove', 'ok', 3001, 11],
  ['group.add', 'ok', 3004, 1],
  ['group.remove', 'ok', 3004, 4],
  ['group.member.add', 'ok', 3006, 3],
  ['group.member.remove', 'ok', 3006, 4],
  ['site.add', 'ok', 3004, 1],
  ['app.set', 'ok', 3004, 3],
  ['policy.apply', 'ok', 3004, 3],
  ['invite.user', 'ok', 3004, 1],
  ['invite.revoke', 'ok', 3004, 4],
  ['device.enrol', 'ok', 3004, 1],
  ['device.disable', 'ok', 3004, 3],
  ['device.revoke', 'ok', 3004, 4],
  ['connector.remove', 'ok', 3004, 4],
  ['relay.receipt_key', 'ok', 3004, 3],
  ['control_plane.join', 'ok', 3004, 1],
  ['certificate.renew', 'ok', 3004, 3],
  ['audit.prune', 'ok', 3004, 4],
  ['relay.start', 'ok', 6002, 3],
  ['relay.stop', 'ok', 6002, 4],
  ['signal.receive', 'ok', 2004, 1],
  ['tunnel.resume', 'refused', 2004, 1],
  ['grant.refused', 'refused', 2004, 1],
  ['admission.refused', 'refused', 2004, 1],
  ['channel.open', 'refused', 2004, 1],
  ['posture.refuse', 'refused', 2004, 1],
  ['identity.enrol', 'refused', 2004, 1],
  ['something.new', 'ok', 0, 99],
];

test('ocsfEvent - gives each record its class, with all that the class requires', (t) => {
  for (const [action, outcome, classUid, activityId] of expected) {
    // With as little as a record may say, and with more.
    for (const more of [{}, { user: 'ada', app: 'wiki', ref: 'dec_1' }]) {
      const record = recordOf({ ...more, action, outcome, actor: 'device:dev_1' });
      const event = ocsfEvent(record, '0.1.0');
      const title = `${action} ${outcome}`;
      t.is(event.class_uid, classUid as typeof event.class_uid, title);
      t.is(event.activity_id, activityId, title);
      t.is(event.category_uid, Math.floor(classUid / 1_000), title);
      t.is(event.type_uid, classUid * 100 + activityId, title);
      t.is(event.time, startMs, title);
      t.is(event['activity_name'], activityId === 99 ? action : undefined, title);
      for (const path of [...ofEvery, ...(ofClass[classUid] ?? [['none']])]) {
        const found = [path].flat().map((one) => at(event, one));
        t.true(
          found.some((value) => value !== undefined && value !== null && value !== ''),
          `${title}: ${String(path)}`,
        );
      }
    }
  }
});

test('ocsfEvent - tells outcome, who, from where and how much', (t) => {
  const denied = ocsfEvent(
    recordOf({
      action: 'decision.made',
      actor: 'device:dev_1',
      outcome: 'refused',
      user: 'ada',
      app: 'wiki',
      ref: 'dec_1',
      details: { session: 'ses_1', address: '203.0.113.9', reason: 'policy_denied' },
    }),
    '0.1.0',
  );
  t.like(denied, {
    status_id: 2,
    status: 'Failure',
    status_detail: 'policy_denied',
    severity_id: 2,
    user: { name: 'ada', type_id: 1 },
    actor: { user: { name: 'ada' } },
    device: { uid: 'dev_1', type_id: 0 },
    session: { uid: 'ses_1' },
    privileges: ['connect wiki'],
    src_endpoint: { ip: '203.0.113.9' },
    metadata: { uid: 'cp1/7', sequence: 7, event_code: 'decision.made', correlation_uid: 'dec_1' },
  });
  const details = { bytesUp: 3, bytesDown: 4 };
  const ended = ocsfEvent(recordOf({ action: 'tunnel.end', subject: 'tun_1', details }), '0.1.0');
  t.like(ended, {
    status_id: 1,
    severity_id: 1,
    traffic: { bytes_out: 3, bytes_in: 4, bytes: 7 },
    connection_info: { uid: 'tun_1' },
    unmapped: { details, hash: '1'.repeat(64) },
  });
  const guessed = recordOf({ action: 'identity.enrol', actor: 'address:::1', outcome: 'refused' });
  t.like(ocsfEvent(guessed, '0.1.0'), {
    status: 'New',
    severity_id: 3,
    src_endpoint: { ip: '::1' },
    finding_info: { title: 'identity.enrol refused', types: ['identity.enrol'] },
  });
});

test('ocsfEvent - takes what an administrator was refused for a change that failed', (t) => {
  const record = recordOf({ action: 'policy.apply', actor: 'uid:0', outcome: 'refused' });
  t.like(ocsfEvent(record, '0.1.0'), { class_uid: 3004, status_id: 2 });
});
