import { ZtnaError } from '../errors.ts';
import { escapeTerminal } from './terminal.ts';

export type LogValue = string | number | boolean | null | undefined;
export type LogFields = Readonly<Record<string, LogValue>>;
export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** Writes one line per event. `event` is `snake_case`; fields are scalars, never secrets or payload. */
export interface Logger {
  debug(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
  /** The same log with these fields on every line. */
  child(fields: LogFields): Logger;
}

const levels: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };

export interface LoggerOptions {
  readonly program: string;
  readonly level?: LogLevel;
  /** Without it, text for a terminal and JSON for everything else. */
  readonly format?: 'json' | 'text';
  /** Takes one line without its end. Without it, stderr. */
  readonly write?: (line: string) => void;
}

/** The level that `ZTNA_LOG_LEVEL` names, `info` without it. Throws ERR_CONFIG_INVALID. */
export function logLevel(): LogLevel {
  const level = process.env['ZTNA_LOG_LEVEL'] ?? 'info';
  if (Object.hasOwn(levels, level)) return level as LogLevel;
  throw new ZtnaError('ERR_CONFIG_INVALID', {
    message: 'ZTNA_LOG_LEVEL is not a level',
    hint: 'set it to debug, info, warn or error',
  });
}

/** A logger for one program; values are escaped so that no field can forge another line or move a terminal. */
export function createLogger(options: LoggerOptions): Logger {
  const threshold = levels[options.level ?? 'info'];
  const isJson = (options.format ?? (process.stderr.isTTY ? 'text' : 'json')) === 'json';
  const write = options.write ?? ((line: string) => void process.stderr.write(`${line}\n`));
  const toLine = isJson ? jsonLine : textLine;

  function withFields(bound: LogFields): Logger {
    const at = (level: LogLevel) => (event: string, fields?: LogFields) => {
      if (levels[level] < threshold) return;
      const time = new Date().toISOString();
      write(toLine(time, level, options.program, event, { ...bound, ...fields }));
    };
    return {
      debug: at('debug'),
      info: at('info'),
      warn: at('warn'),
      error: at('error'),
      child: (fields) => withFields({ ...bound, ...fields }),
    };
  }
  return withFields({});
}

function jsonLine(
  time: string,
  level: LogLevel,
  program: string,
  event: string,
  fields: LogFields,
): string {
  // The four leading members come last in the spread, so no field can replace them.
  const head = { time, level, program, event };
  return escapeTerminal(JSON.stringify({ ...head, ...fields, ...head }));
}

function textLine(
  time: string,
  level: LogLevel,
  program: string,
  event: string,
  fields: LogFields,
): string {
  const rest = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${textValue(value)}`);
  return escapeTerminal([time, level.padEnd(5), program, event, ...rest].join(' '));
}

function textValue(value: LogValue): string {
  if (typeof value !== 'string') return String(value);
  return /^[\w.:/@+-]+$/.test(value) ? value : JSON.stringify(value);
}
