import { declareOnPostgres } from '../../on-postgresql.ts';

await declareOnPostgres('identity/oidc/attacks');
