import { ZtnaError } from '../protocol/index.ts';
import { http } from '../protocol/host/index.ts';

/** One number that operators watch. */
export interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: 'gauge' | 'counter' | 'histogram';
  readonly values: readonly {
    /** Behind the name: `_bucket`, `_sum` and `_count` of a histogram. */
    readonly suffix?: string;
    readonly labels?: Record<string, string>;
    readonly value: number;
  }[];
}

export interface HealthServer {
  readonly address: string;
  readonly port: number;
  stop(): Promise<void>;
}

/**
 * Serves `/livez`, `/readyz` and `/metrics` (Prometheus text) for probes, on loopback unless told otherwise. It
 * answers nothing else and takes no body.
 */
export async function startHealthServer(options: {
  readonly host: string;
  readonly port: number;
  readonly isReady: () => boolean;
  readonly metrics: () => Promise<readonly Metric[]>;
}): Promise<HealthServer> {
  const server = http.createServer((request, response) => {
    const answer = (status: number, text: string) => {
      response.writeHead(status, {
        'content-type': 'text/plain; version=0.0.4; charset=utf-8',
        'x-content-type-options': 'nosniff',
        connection: 'close',
      });
      response.end(text);
    };
    if (request.method !== 'GET') answer(405, 'only GET\n');
    else if (request.url === '/livez') answer(200, 'ok\n');
    else if (request.url === '/readyz') {
      answer(options.isReady() ? 200 : 503, options.isReady() ? 'ok\n' : 'not ready\n');
    } else if (request.url === '/metrics') {
      void options
        .metrics()
        .then(formatMetrics)
        .then(
          (text) => {
            answer(200, text);
          },
          () => {
            answer(503, 'not ready\n');
          },
        );
    } else answer(404, 'not found\n');
  });
  server.headersTimeout = 5_000;
  server.requestTimeout = 5_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(error.code === 'EADDRINUSE' ? portBusy(options, error) : error);
    });
    server.listen(options.port, options.host, resolve);
  });
  const bound = server.address();
  let stopping: Promise<void> | undefined;
  return {
    address: options.host,
    port: typeof bound === 'object' && bound ? bound.port : options.port,
    stop: () =>
      (stopping ??= new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
        server.closeAllConnections();
      })),
  };
}

function portBusy(at: { readonly host: string; readonly port: number }, cause: Error): ZtnaError {
  return new ZtnaError('ERR_CLIENT_PORT_BUSY', {
    message: `port ${String(at.port)} on ${at.host} is taken`,
    hint: 'choose another adminListen in relay.yaml, or --admin-listen',
    cause,
  });
}

/** Metrics in Prometheus' text format. */
export function formatMetrics(metrics: readonly Metric[]): string {
  const escape = (text: string) =>
    text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
  return metrics
    .map(({ name, help, type, values }) => {
      const lines = values.map(({ suffix = '', labels = {}, value }) => {
        const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escape(text)}"`);
        return `${name}${suffix}${pairs.length > 0 ? `{${pairs.join(',')}}` : ''} ${String(value)}`;
      });
      return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines, ''].join('\n');
    })
    .join('');
}
