import test from 'ava';
import { createLogger, logLevel, type LogFields } from '../../../protocol/host/log.ts';
import { escapeTerminal, printTable } from '../../../protocol/host/terminal.ts';

function linesOf(format: 'json' | 'text', level?: 'debug' | 'warn') {
  const lines: string[] = [];
  const write = (line: string) => void lines.push(line);
  const logger = createLogger({ program: 'ztna', format, write, ...(level ? { level } : {}) });
  return { logger, lines };
}

test('createLogger - writes one JSON object with the fields of its children', (t) => {
  const { logger, lines } = linesOf('json');
  logger.child({ tunnel: 'tun_1' }).info('tunnel_opened', { bytes: 3, gone: undefined });
  const { time, ...rest } = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
  t.deepEqual(rest, {
    level: 'info',
    program: 'ztna',
    event: 'tunnel_opened',
    tunnel: 'tun_1',
    bytes: 3,
  });
  t.regex(String(time), /^\d{4}-.*Z$/);
});

test('createLogger - no field replaces the time, level, program or event', (t) => {
  const { logger, lines } = linesOf('json');
  const hostile = { event: 'other', level: 'debug', time: 'never', program: 'x' } as LogFields;
  logger.error('real', hostile);
  const line = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
  t.like(line, { event: 'real', level: 'error', program: 'ztna' });
  t.not(line['time'], 'never');
});

test('createLogger - nothing that a peer sent makes another line or moves the terminal', (t) => {
  for (const format of ['json', 'text'] as const) {
    const { logger, lines } = linesOf(format);
    logger.warn('peer_said', { text: 'a\nb\r\u001b[2J\u0085\u202e\u2028"' });
    t.is(lines.length, 1);

    t.notRegex(lines[0] ?? '', /[\u0000-\u001f\u007f-\u009f\u2028\u202e]/);
  }
});

test('createLogger - drops what is below its level', (t) => {
  const { logger, lines } = linesOf('text', 'warn');
  logger.info('quiet');
  logger.warn('loud');
  t.is(lines.length, 1);
});

test('escapeTerminal - keeps letters of every language', (t) => {
  t.is(escapeTerminal('Grüße, 世界 👋'), 'Grüße, 世界 👋');
});

test('printTable - aligns columns, shows lists, and a dash for what is absent', (t) => {
  const rows = [
    { name: 'wiki', groups: ['a', 'b'], signedInAt: null },
    { name: 'postgres', groups: [], signedInAt: '\u001b[1m' },
  ];
  t.is(
    printTable(rows),
    'NAME      GROUPS  SIGNED IN AT\n' + 'wiki      a,b     -\n' + 'postgres  -       \\u001b[1m\n',
  );
  t.is(printTable([]), '');
  t.is(printTable(rows, ['name']), 'NAME\nwiki\npostgres\n');
});

test('logLevel - is the one that the environment names, and refuses what is none', (t) => {
  t.is(logLevel(), 'info');
  process.env['ZTNA_LOG_LEVEL'] = 'warn';
  t.is(logLevel(), 'warn');
  for (const text of ['', 'loud', 'toString']) {
    process.env['ZTNA_LOG_LEVEL'] = text;
    t.throws(() => logLevel(), { code: 'ERR_CONFIG_INVALID' });
  }
  delete process.env['ZTNA_LOG_LEVEL'];
});
