import { groupSchema, listOf, maxPage, scimPath, userSchema } from './resource.ts';

const schemaSchema = 'urn:ietf:params:scim:schemas:core:2.0:Schema';
const typeSchema = 'urn:ietf:params:scim:schemas:core:2.0:ResourceType';
const configSchema = 'urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig';

/** What this server can do (RFC 7643, section 5). */
function serviceProviderConfig(base: string) {
  const no = { supported: false };
  return {
    schemas: [configSchema],
    patch: { supported: true },
    bulk: { supported: false, maxOperations: 0, maxPayloadSize: 0 },
    filter: { supported: true, maxResults: maxPage },
    changePassword: no,
    sort: no,
    etag: no,
    authenticationSchemes: [
      {
        type: 'oauthbearertoken',
        name: 'Bearer token',
        description: 'a token of ztna-relay scim-token add',
        primary: true,
      },
    ],
    meta: { resourceType: 'ServiceProviderConfig', location: at(base, 'ServiceProviderConfig') },
  };
}

function resourceTypes(base: string) {
  return [
    { id: 'User', endpoint: '/Users', schema: userSchema },
    { id: 'Group', endpoint: '/Groups', schema: groupSchema },
  ].map((type) => ({
    schemas: [typeSchema],
    name: type.id,
    ...type,
    meta: { resourceType: 'ResourceType', location: at(base, `ResourceTypes/${type.id}`) },
  }));
}

interface Attribute {
  readonly name: string;
  readonly type?: string;
  readonly multiValued?: boolean;
  readonly required?: boolean;
  readonly mutability?: string;
  readonly uniqueness?: string;
  readonly caseExact?: boolean;
  readonly subAttributes?: readonly Attribute[];
}

function attribute(given: Attribute): Record<string, unknown> {
  const { subAttributes, ...own } = given;
  return {
    type: 'string',
    multiValued: false,
    description: given.name,
    required: false,
    caseExact: false,
    mutability: 'readWrite',
    returned: 'default',
    uniqueness: 'none',
    ...own,
    ...(subAttributes ? { type: 'complex', subAttributes: subAttributes.map(attribute) } : {}),
  };
}

function schemas(base: string) {
  const externalId = { name: 'externalId', caseExact: true };
  const all = [
    {
      id: userSchema,
      name: 'User',
      attributes: [
        { name: 'userName', required: true, uniqueness: 'server' },
        externalId,
        { name: 'displayName' },
        { name: 'name', subAttributes: [{ name: 'formatted' }] },
        { name: 'active', type: 'boolean' },
        {
          name: 'groups',
          multiValued: true,
          mutability: 'readOnly',
          subAttributes: [{ name: 'display', mutability: 'readOnly' }],
        },
      ],
    },
    {
      id: groupSchema,
      name: 'Group',
      attributes: [
        { name: 'displayName', required: true, uniqueness: 'server' },
        externalId,
        {
          name: 'members',
          multiValued: true,
          subAttributes: [
            { name: 'value', mutability: 'immutable' },
            { name: 'display', mutability: 'readOnly' },
          ],
        },
      ],
    },
  ];
  return all.map((schema) => ({
    schemas: [schemaSchema],
    ...schema,
    attributes: schema.attributes.map(attribute),
    meta: { resourceType: 'Schema', location: at(base, `Schemas/${schema.id}`) },
  }));
}

/** What is asked of the server about itself, or undefined for what there is not. */
export function discover(base: string, kind: string, id: string | undefined): unknown {
  if (kind === 'ServiceProviderConfig') {
    return id === undefined ? serviceProviderConfig(base) : undefined;
  }
  const all: readonly { readonly id: string }[] =
    kind === 'ResourceTypes' ? resourceTypes(base) : schemas(base);
  if (id === undefined) return listOf(all, all.length, 0);
  return all.find((one) => one.id === id);
}

function at(base: string, path: string): string {
  return new URL(scimPath + path, base).href;
}
