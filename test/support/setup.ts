import { afterAll } from 'vitest';
import { settleTestDevice } from './device.ts';

afterAll(settleTestDevice);
