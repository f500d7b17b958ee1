import { declareOnPostgres } from '../on-postgresql.ts';

await declareOnPostgres('web/own');
