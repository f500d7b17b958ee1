import type { WebSocket } from 'ws';
import {
  decodeMessage,
  encodeMessage,
  fromSlot,
  toSlot,
  ZtnaError,
  type ConnectorId,
  type InstanceId,
  type TunnelId,
} from '../../protocol/index.ts';
import { refuse } from './close.ts';
import { limits } from './limits.ts';
import { Liveness } from './liveness.ts';

/** An idle data WebSocket of one connector process. */
interface Slot {
  readonly ws: WebSocket;
  readonly untilMs: number; // monotonic
  readonly certificateUntilMs: number; // control time
  readonly liveness: Liveness;
  wasHeard: boolean;
}

/** A connector's socket that has taken on a tunnel: open, paused, unread. */
export interface AssignedSlot {
  readonly ws: WebSocket;
  readonly certificateUntilMs: number;
}

/** The process that counts for a connector, and those it has replaced. */
interface Newest {
  id: InstanceId;
  readonly replaced: Set<InstanceId>;
  /** Since when it holds no idle socket, in monotonic time. */
  emptySinceMs: number | undefined;
}

/** All idle sockets of one connector process, and the tunnels that wait for one. */
class Instance {
  readonly connector: ConnectorId;
  readonly id: InstanceId;
  readonly idle = new Set<Slot>();
  readonly waiting: ((slot: Slot) => void)[] = [];

  constructor(connector: ConnectorId, id: InstanceId) {
    this.connector = connector;
    this.id = id;
  }
}

export interface SlotsOptions {
  /** The number of idle sockets of a connector process turned to or from zero. */
  readonly onIdleChange: (connector: ConnectorId, instance: InstanceId, idle: number) => void;
}

/**
 * The sockets that connectors keep dialled ahead. Each serves one tunnel; idle ones die when a newer process of
 * the same connector appears, when the connector is revoked, and after an hour.
 *
 *   idle ──assign──▶ asked ──assigned──▶ handed out
 *                      └──refused | silent for a second──▶ closed (the next is tried)
 */
export class Slots {
  readonly #options: SlotsOptions;
  readonly #instances = new Map<InstanceId, Instance>();
  /** The process that counts for each connector, and those it has replaced. */
  readonly #newest = new Map<ConnectorId, Newest>();

  constructor(options: SlotsOptions) {
    this.#options = options;
  }

  /** Takes in a socket that a connector dialled ahead. Throws ERR_LIMIT_TUNNELS or ERR_RELAY_UNAVAILABLE. */
  add(
    ws: WebSocket,
    from: { connector: ConnectorId; instance: InstanceId; certificateUntilMs: number },
    nowMs: number,
  ): void {
    const instance = this.#instanceOf(from.connector, from.instance, nowMs);
    if (instance.idle.size >= limits.slotsPerInstance) throw new ZtnaError('ERR_LIMIT_TUNNELS');
    const slot: Slot = {
      ws,
      untilMs: nowMs + limits.slotLifeMs,
      certificateUntilMs: from.certificateUntilMs,
      liveness: new Liveness(nowMs),
      wasHeard: false,
    };
    const unexpected = () => {
      this.#drop(instance, slot, new ZtnaError('ERR_MESSAGE_UNEXPECTED'));
    };
    ws.on('message', unexpected);
    const heard = () => {
      slot.wasHeard = true;
    };
    ws.on('pong', heard);
    ws.on('ping', heard);
    ws.once('close', () => {
      this.#remove(instance, slot);
    });
    ws.resume();
    const waiter = instance.waiting.shift();
    if (waiter) {
      waiter(slot);
      return;
    }
    instance.idle.add(slot);
    const newest = this.#newest.get(instance.connector);
    if (newest) newest.emptySinceMs = undefined;
    if (instance.idle.size === 1) this.#announce(instance);
  }

  /** Counts of every process that has idle sockets: what a control plane that lost the thread must hear again. */
  counts(): { connector: ConnectorId; instance: InstanceId; idle: number }[] {
    return [...this.#instances.values()]
      .filter(({ idle }) => idle.size > 0)
      .map(({ connector, id, idle }) => ({ connector, instance: id, idle: idle.size }));
  }

  /**
   * Gives the tunnel to one of that process's sockets. Throws the connector's own refusal, ERR_CONNECTOR_OFFLINE
   * when none came or answered in time, and whatever `signal` was aborted with.
   */
  async assign(
    to: { connector: ConnectorId; instance: InstanceId; tunnel: TunnelId; grant: string },
    signal: AbortSignal,
  ): Promise<AssignedSlot> {
    const { connector, instance, tunnel } = to;
    const message = encodeMessage(toSlot, { type: 'assign', tunnel, grant: to.grant });
    const deadline = AbortSignal.timeout(limits.slotWaitMs);
    for (let attempt = 0; attempt < limits.slotAttempts; attempt++) {
      const slot = await this.#next(connector, instance, AbortSignal.any([signal, deadline]));
      if (!slot) break;
      const answer = await ask(slot.ws, tunnel, message, signal);
      if (answer === 'assigned') return slot;
      refuse(slot.ws, answer ?? new ZtnaError('ERR_HANDSHAKE_TIMEOUT'));
      signal.throwIfAborted();
      if (answer) throw answer;
    }
    signal.throwIfAborted();
    throw new ZtnaError('ERR_CONNECTOR_OFFLINE', { reason: 'no_slot' });
  }

  /** The oldest idle socket, or the next that is dialled; undefined when `signal` ends the wait. */
  #next(
    connector: ConnectorId,
    instanceId: InstanceId,
    signal: AbortSignal,
  ): Promise<Slot | undefined> {
    let instance = this.#instances.get(instanceId);
    if (instance && instance.connector !== connector) return Promise.resolve(undefined);
    for (const slot of instance?.idle ?? []) {
      if (instance) this.#remove(instance, slot);
      slot.ws.removeAllListeners('message');
      if (slot.ws.readyState === slot.ws.OPEN) return Promise.resolve(slot);
    }
    if (signal.aborted || this.#newest.get(connector)?.replaced.has(instanceId)) {
      return Promise.resolve(undefined);
    }
    if (!instance) {
      instance = new Instance(connector, instanceId);
      this.#instances.set(instanceId, instance);
    }
    const { waiting } = instance;
    if (waiting.length >= limits.waitersPerInstance) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      const waiter = (slot: Slot) => {
        signal.removeEventListener('abort', giveUp);
        slot.ws.removeAllListeners('message');
        resolve(slot);
      };
      const giveUp = () => {
        waiting.splice(waiting.indexOf(waiter), 1);
        this.#forgetIfEmpty(instance);
        resolve(undefined);
      };
      signal.addEventListener('abort', giveUp, { once: true });
      waiting.push(waiter);
    });
  }

  /** Enforcement: a few times a second, in monotonic and (when known) control time. */
  tick(nowMs: number, controlMs: number | undefined): void {
    for (const instance of this.#instances.values()) {
      for (const slot of instance.idle) this.#check(instance, slot, nowMs, controlMs);
    }
  }

  #check(instance: Instance, slot: Slot, nowMs: number, controlMs: number | undefined): void {
    const { ws, wasHeard } = slot;
    slot.wasHeard = false;
    if (controlMs !== undefined && controlMs >= slot.certificateUntilMs) {
      this.#drop(instance, slot, new ZtnaError('ERR_TUNNEL_LEASE_EXPIRED'));
      return;
    }
    if (nowMs >= slot.untilMs) {
      this.#drop(instance, slot, new ZtnaError('ERR_TUNNEL_CLOSED'));
      return;
    }
    const activity = {
      wasHeard,
      sentBytes: 0,
      queuedBytes: 0,
      isPaused: false,
      isActive: true,
    };
    const verdict = slot.liveness.step(nowMs, activity);
    if (verdict === 'ping') ws.ping();
    if (verdict === 'dead') {
      this.#remove(instance, slot);
      ws.terminate();
    }
  }

  /** Closes every idle socket of a connector. */
  dropConnector(connector: ConnectorId, error: ZtnaError): void {
    for (const instance of this.#instances.values()) {
      if (instance.connector === connector) this.#dropInstance(instance, error);
    }
  }

  /** Has connectors dial ahead elsewhere: every idle socket is told so, and closed. */
  drain(error: ZtnaError): void {
    const text = encodeMessage(toSlot, { type: 'drain' });
    for (const { idle } of this.#instances.values()) {
      for (const { ws } of idle) if (ws.readyState === ws.OPEN) ws.send(text);
    }
    this.stop(error);
  }

  /** Closes every idle socket. */
  stop(error: ZtnaError): void {
    for (const instance of this.#instances.values()) this.#dropInstance(instance, error);
  }

  #instanceOf(connector: ConnectorId, id: InstanceId, nowMs: number): Instance {
    const newest = this.#newest.get(connector) ?? {
      id,
      replaced: new Set(),
      emptySinceMs: undefined,
    };
    this.#newest.set(connector, newest);
    // Which is newer the control plane knows, and drives the older away. A relay that saw the older one come back after
    // its own restart has them the wrong way round until then.
    const isGone =
      newest.emptySinceMs !== undefined && nowMs - newest.emptySinceMs >= limits.instanceGoneMs;
    if (isGone) newest.replaced.delete(id);
    if (newest.replaced.has(id)) {
      throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { reason: 'instance_replaced' });
    }
    if (newest.id !== id) this.#replace(connector, newest, id);
    let instance = this.#instances.get(id);
    if (!instance) {
      instance = new Instance(connector, id);
      this.#instances.set(id, instance);
    }
    if (instance.connector !== connector) throw new ZtnaError('ERR_IDENTITY_ROLE');
    return instance;
  }

  #replace(connector: ConnectorId, newest: Newest, id: InstanceId): void {
    newest.replaced.add(newest.id);
    newest.id = id;
    const [oldest] = newest.replaced;
    if (newest.replaced.size > 16 && oldest) newest.replaced.delete(oldest);
    const error = new ZtnaError('ERR_RELAY_UNAVAILABLE', { reason: 'instance_replaced' });
    for (const instance of this.#instances.values()) {
      if (instance.connector === connector && instance.id !== id) {
        this.#dropInstance(instance, error);
      }
    }
  }

  #dropInstance(instance: Instance, error: ZtnaError): void {
    for (const slot of [...instance.idle]) this.#drop(instance, slot, error);
  }

  #drop(instance: Instance, slot: Slot, error: ZtnaError): void {
    this.#remove(instance, slot);
    slot.ws.removeAllListeners('message');
    refuse(slot.ws, error);
  }

  #remove(instance: Instance, slot: Slot): void {
    if (!instance.idle.delete(slot) || instance.idle.size > 0) return;
    const newest = this.#newest.get(instance.connector);
    if (newest?.id === instance.id) newest.emptySinceMs = performance.now();
    this.#announce(instance);
    this.#forgetIfEmpty(instance);
  }

  #forgetIfEmpty(instance: Instance): void {
    if (instance.idle.size === 0 && instance.waiting.length === 0) {
      this.#instances.delete(instance.id);
    }
  }

  #announce(instance: Instance): void {
    this.#options.onIdleChange(instance.connector, instance.id, instance.idle.size);
  }
}

/** Asks one socket; its refusal as an error, or undefined when it said nothing in time or went away. */
function ask(
  ws: WebSocket,
  tunnel: TunnelId,
  message: string,
  signal: AbortSignal,
): Promise<'assigned' | ZtnaError | undefined> {
  return new Promise((resolve) => {
    const settle = (answer: 'assigned' | ZtnaError | undefined) => {
      clearTimeout(timer);
      ws.off('message', onMessage).off('close', onLost);
      signal.removeEventListener('abort', onLost);
      if (answer === 'assigned') ws.pause();
      resolve(answer);
    };
    const onLost = () => {
      settle(undefined);
    };
    const onMessage = (data: Buffer, isBinary: boolean) => {
      settle(readAnswer(data, isBinary, tunnel));
    };
    const timer = setTimeout(onLost, limits.slotAckMs);
    ws.on('message', onMessage).once('close', onLost);
    signal.addEventListener('abort', onLost, { once: true });
    ws.send(message);
  });
}

function readAnswer(data: Buffer, isBinary: boolean, tunnel: TunnelId): 'assigned' | ZtnaError {
  try {
    if (isBinary) throw new ZtnaError('ERR_MESSAGE_UNEXPECTED');
    const answer = decodeMessage(fromSlot, data, limits.hopMessageBytes);
    if (answer.tunnel !== tunnel) throw new ZtnaError('ERR_MESSAGE_UNEXPECTED');
    if (answer.type === 'assigned') return 'assigned';
    return new ZtnaError(answer.code, { reason: 'refused_by_connector', hop: 'connector' });
  } catch (cause) {
    // What the connector said wrong is between it and us; to the client it is a connector that does not work.
    return new ZtnaError('ERR_CONNECTOR_OFFLINE', { reason: 'connector_misspoke', cause });
  }
}
