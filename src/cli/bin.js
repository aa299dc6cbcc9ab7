#!/usr/bin/env node
// The installed command: the sources are TypeScript, which tsx loads as they are.
import { register } from 'tsx/esm/api';

register();
await import('./main.ts');
