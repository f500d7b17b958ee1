import { declareOnPostgres } from '../on-postgresql.ts';

await declareOnPostgres('scim/groups');
