import { limitKeyOf } from '../../data-plane/address.ts';
import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import { Throttle } from '../listener/throttle.ts';
import { readBody, reply, type WebRequest, type WebRoute } from '../web/request.ts';
import { discover } from './discovery.ts';
import * as groups from './groups.ts';
import { refusalOf, refuseScim, type ScimRefusal } from './refuse.ts';
import {
  callerOf,
  project,
  readListQuery,
  scimPath,
  type Resource,
  type ScimCaller,
} from './resource.ts';
import { findToken, isUseNoted } from './token.ts';
import * as users from './users.ts';
import type { Services } from '../services.ts';
import type { ScimToken } from '../store/index.ts';

/** A request's body: a group of 10,000 members has room. */
const maxBodyBytes = 1_048_576;

/** Requests of one address before it proved anything, and of one token. */
const ofAddress = new Throttle({ burst: 600, perMinute: 3_000 });
const ofToken = new Throttle({ burst: 600, perMinute: 3_000 });

const errorSchema = 'urn:ietf:params:scim:api:messages:2.0:Error';

interface Answer {
  readonly status: number;
  readonly body?: unknown;
  readonly location?: string;
}

/** SCIM 2.0 (RFC 7643, 7644): whoever has a token keeps users and groups in step. */
export const scimRoute: WebRoute = { prefix: scimPath, answer };

async function answer(services: Services, web: WebRequest): Promise<void> {
  const { response, address, request } = web;
  const { store, clock, logger } = services;
  try {
    if (!ofAddress.take(limitKeyOf(address), clock.nowMs())) throw new ZtnaError('ERR_LIMIT_RATE');
    // Before any byte of the body: strangers make us keep nothing.
    const token = await findToken(store.db, request.headers.authorization);
    if (!token) {
      send(web, refused({ status: 401, scimType: null, detail: 'not authenticated' }));
      await services.refusals.record(address, {
        actor: `address:${address}`,
        action: 'scim.request',
        subject: 'scim',
        details: { reason: 'scim_token_wrong', address },
      });
      return;
    }
    if (!ofToken.take(token.id, clock.nowMs())) throw new ZtnaError('ERR_LIMIT_RATE');
    await noteUse(services, token);
    const found = await dispatch(services, callerOf(token), web);
    // What ended permission was told to everyone here before the answer.
    if (request.method !== 'GET') await services.feed.wake();
    send(web, found);
  } catch (thrown) {
    const error = toZtnaError(thrown);
    const refusal = refusalOf(error);
    if (refusal) {
      send(web, refused(refusal));
      return;
    }
    const { code, message, cause } = error;
    const detail = cause instanceof Error ? (cause.stack ?? cause.message) : message;
    logger.error('scim_failed', { path: web.url.pathname, code, error: detail });
    if (!response.headersSent) {
      send(web, refused({ status: 500, scimType: null, detail: 'something went wrong here' }));
    }
  }
}

async function noteUse({ store, clock }: Services, token: ScimToken): Promise<void> {
  const nowMs = clock.nowMs();
  if (isUseNoted(token, nowMs)) return;
  await store.write((tx) =>
    tx.updateTable('scimTokens').set({ lastUsedAtMs: nowMs }).where('id', '=', token.id).execute(),
  );
}

async function dispatch(
  services: Services,
  caller: ScimCaller,
  { url, request }: WebRequest,
): Promise<Answer> {
  const path = url.pathname.slice(scimPath.length).replace(/\/$/, '');
  const [kind = '', id, ...rest] = path.split('/');
  const method = request.method ?? '';
  if (rest.length > 0) throw notFound();
  const one = id === undefined ? undefined : decode(id);
  switch (kind) {
    case 'ServiceProviderConfig':
    case 'ResourceTypes':
    case 'Schemas': {
      if (method !== 'GET') throw refuseScim('scim_method', 'there is only GET');
      const body = discover(services.settings.url, kind, one);
      if (body === undefined) throw notFound();
      return { status: 200, body };
    }
    case 'Users':
      return one === undefined
        ? onAll(services, caller, request, url, users.listUsers, users.createUser)
        : onUser(services, caller, request, url, one);
    case 'Groups':
      return one === undefined
        ? onAll(services, caller, request, url, groups.listGroups, groups.createGroup)
        : onGroup(services, caller, request, url, one);
    case 'Bulk':
    case 'Me':
    case '.search':
      throw refuseScim('scim_not_supported', `${kind} is not supported`);
    default:
      throw notFound();
  }
}

type Request = WebRequest['request'];

async function onAll(
  services: Services,
  caller: ScimCaller,
  request: Request,
  { searchParams }: URL,
  list: typeof users.listUsers | typeof groups.listGroups,
  create: typeof users.createUser,
): Promise<Answer> {
  if (request.method === 'GET') {
    const found = await list(services, caller, readListQuery(searchParams));
    const Resources = found.Resources.map((one) => project(searchParams, one));
    return { status: 200, body: { ...found, Resources } };
  }
  if (request.method !== 'POST') throw refuseScim('scim_method', 'there are GET and POST');
  const made = await create(services, caller, await readJson(request));
  const { location } = made['meta'] as { location: string };
  return { status: 201, body: project(searchParams, made), location };
}

async function onUser(
  services: Services,
  caller: ScimCaller,
  request: Request,
  { searchParams }: URL,
  id: string,
): Promise<Answer> {
  const shown = (user: Resource): Answer => ({ status: 200, body: project(searchParams, user) });
  switch (request.method ?? '') {
    case 'GET':
      return shown(await users.showUser(services, caller, id));
    case 'PUT':
      return shown(await users.replaceUser(services, caller, id, await readJson(request)));
    case 'PATCH':
      return shown(await users.patchUser(services, caller, id, await readJson(request)));
    case 'DELETE':
      await users.deleteUser(services, caller, id);
      return { status: 204 };
    default:
      throw refuseScim('scim_method', 'there are GET, PUT, PATCH and DELETE');
  }
}

async function onGroup(
  services: Services,
  caller: ScimCaller,
  request: Request,
  { searchParams }: URL,
  id: string,
): Promise<Answer> {
  const shown = (group: Resource): Answer => ({ status: 200, body: project(searchParams, group) });
  switch (request.method ?? '') {
    case 'GET':
      return shown(await groups.showGroup(services, caller, id));
    case 'PUT':
      return shown(await groups.replaceGroup(services, caller, id, await readJson(request)));
    case 'PATCH':
      // A group may be large, and directories that change it by parts do not read it back.
      await groups.patchGroup(services, caller, id, await readJson(request));
      return { status: 204 };
    case 'DELETE':
      await groups.deleteGroup(services, caller, id);
      return { status: 204 };
    default:
      throw refuseScim('scim_method', 'there are GET, PUT, PATCH and DELETE');
  }
}

async function readJson(request: Request): Promise<unknown> {
  const type = request.headers['content-type']?.split(';')[0]?.trim().toLowerCase();
  if (type !== 'application/scim+json' && type !== 'application/json') {
    throw refuseScim('scim_invalid_syntax', 'the body must be application/scim+json');
  }
  const body = await readBody(request, maxBodyBytes);
  try {
    return JSON.parse(body.toString('utf8')) as unknown;
  } catch (cause) {
    throw refuseScim('scim_invalid_syntax', 'the body is no JSON text', cause);
  }
}

function decode(id: string): string {
  try {
    return decodeURIComponent(id);
  } catch (cause) {
    throw refuseScim('scim_not_found', 'there is nothing at this path', cause);
  }
}

function notFound(): ZtnaError {
  return refuseScim('scim_not_found', 'there is nothing at this path');
}

function refused({ status, scimType, detail }: ScimRefusal): Answer {
  const type = scimType === null ? {} : { scimType };
  return { status, body: { schemas: [errorSchema], status: String(status), ...type, detail } };
}

function send({ response }: WebRequest, { status, body, location }: Answer): void {
  const text = body === undefined ? '' : JSON.stringify(body);
  reply(response, status, 'application/scim+json', text, {
    ...(location === undefined ? {} : { location }),
    ...(status === 401 ? { 'www-authenticate': 'Bearer' } : {}),
    ...(status === 429 || status === 503 ? { 'retry-after': '5' } : {}),
  });
}
