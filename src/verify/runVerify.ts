import { writeFileAtomic } from '../data/files.ts';
import type { Device } from '../tensor/device.ts';
import { goldenFolders, openGolden } from './golden.ts';
import { verifyModel } from './model.ts';
import { type Progress, verifyOps } from './ops.ts';
import type { Row } from './rows.ts';

export type { Progress } from './ops.ts';
export type { Row } from './rows.ts';

/** One folder's rows. */
export interface VerifiedCase {
  name: string;
  kind: 'ops' | 'model';
  rows: Row[];
}

export interface VerifyOptions {
  /** A folder with `case.json` and `tensors.safetensors`, or one that holds several such folders. */
  golden: string;
  device: Device;
  /** A file that receives everything: `{adapter, ok, cases: [{name, kind, rows}]}`. */
  json?: string;
  /** Told of each finished operator case or training step of the case `name`. */
  progress?: (name: string, ...told: Parameters<Progress>) => void;
}

/**
 * Computes golden cases on a device and compares every value that they hold, with the tolerances of the goldens' README.
 * @throws UserError when a folder cannot be read; values that are off are rows, not errors.
 */
export async function runVerify({ golden, device, json, progress }: VerifyOptions): Promise<VerifiedCase[]> {
  const cases: VerifiedCase[] = [];
  for (const folder of goldenFolders(golden)) {
    const opened = openGolden(folder);
    const { name, kind } = opened;
    const tell: Progress = (...told) => progress?.(name, ...told);
    try {
      const rows =
        opened.kind === 'ops' ? await verifyOps(device, opened, tell) : await verifyModel(device, opened, tell);
      cases.push({ name, kind, rows });
    } finally {
      opened.tensors.close();
    }
  }
  if (json !== undefined) {
    const ok = cases.every(({ rows }) => rows.every((row) => row.ok));
    const { name, kind } = device.gpu.opened.info;
    writeFileAtomic(json, `${JSON.stringify({ adapter: { name, kind }, ok, cases }, null, 1)}\n`);
  }
  return cases;
}
