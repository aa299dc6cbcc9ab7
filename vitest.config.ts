import { defineConfig } from 'vitest/config';

// One process, no isolation: one GPU device and its compiled pipelines serve all files (compiling dominates on software adapters).
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'threads',
    isolate: false,
    fileParallelism: false,
    maxWorkers: 1,
    testTimeout: 120_000,
    hookTimeout: 300_000,
    setupFiles: ['./test/support/setup.ts'],
    reporters: ['default', './test/support/plainReporter.ts'],
  },
});
