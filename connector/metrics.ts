/** Counts what happened since the process began; plain text for a scraper comes from `render`. */
export class Metrics {
  readonly #counters = new Map<string, number>();

  /** Adds to the counter `name`, told apart by `labels`. Names and values of labels are our own words. */
  count(name: CounterName, labels: Readonly<Record<string, string>> = {}, by = 1): void {
    const key = series(name, labels);
    this.#counters.set(key, (this.#counters.get(key) ?? 0) + by);
  }

  /** Counters, and the gauges given, in the text form that Prometheus reads. */
  render(
    gauges: Readonly<Record<string, number>>,
    appsUp: readonly (readonly [name: string, isUp: boolean])[] = [],
  ): string {
    const lines: string[] = [];
    for (const [name, help] of Object.entries(counterHelp)) {
      const rows = [...this.#counters].filter(([key]) => key.split('{')[0] === prefix + name);
      lines.push(`# HELP ${prefix}${name} ${help}`, `# TYPE ${prefix}${name} counter`);
      if (rows.length === 0) lines.push(`${prefix}${name} 0`);
      for (const [key, value] of rows) lines.push(`${key} ${value}`);
    }
    for (const [name, value] of Object.entries(gauges)) {
      lines.push(`# TYPE ${prefix}${name} gauge`, `${prefix}${name} ${value}`);
    }
    if (appsUp.length > 0) {
      lines.push(`# HELP ${prefix}app_up 1 while the checks of the app succeed.`);
      lines.push(`# TYPE ${prefix}app_up gauge`);
    }
    for (const [app, isUp] of appsUp) lines.push(`${series('app_up', { app })} ${isUp ? 1 : 0}`);
    return `${lines.join('\n')}\n`;
  }
}

const prefix = 'ztna_connector_';

const counterHelp = {
  tunnels_opened_total: 'Tunnels accepted.',
  tunnels_closed_total: 'Tunnels ended, by code.',
  tunnels_detached_total: 'Times a tunnel lost its path and was kept, by reason.',
  tunnels_resumed_total:
    'Times a tunnel went on with another path, after a loss or in place of the one before.',
  grants_refused_total: 'Clients refused, by code.',
  app_dials_total: 'Connections to apps, by outcome.',
  app_bytes_up_total: 'Bytes of ended tunnels written to apps.',
  app_bytes_down_total: 'Bytes of ended tunnels read from apps.',
  renewals_total: 'Lease renewals that counted.',
  channel_losses_total: 'Times the control channel was lost or could not be dialled.',
} as const;
type CounterName = keyof typeof counterHelp;

function series(name: string, labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
  return prefix + name + (pairs.length > 0 ? `{${pairs.join(',')}}` : '');
}
