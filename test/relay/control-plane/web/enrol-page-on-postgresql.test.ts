import { declareOnPostgres } from '../on-postgresql.ts';

await declareOnPostgres('web/enrol-page');
