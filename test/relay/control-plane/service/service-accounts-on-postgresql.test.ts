import { declareOnPostgres } from '../on-postgresql.ts';

await declareOnPostgres('service/service-accounts');
