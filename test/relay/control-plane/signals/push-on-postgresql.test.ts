import { declareOnPostgres } from '../on-postgresql.ts';

await declareOnPostgres('signals/push');
