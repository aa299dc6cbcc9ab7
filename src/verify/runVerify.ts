import { writeFileAtomic } from '../data/files.ts';
import type { Device } from '../tensor/device.ts';
import { verifyData } from './data.ts';
import { type Golden, goldenFolders, openGolden } from './golden.ts';
import { verifyModel } from './model.ts';
import { type Progress, verifyOps } from './ops.ts';
import type { Row } from './rows.ts';

export type { Progress } from './ops.ts';
export type { Row } from './rows.ts';

/** One folder's rows. */
export interface VerifiedCase {
  name: string;
  kind: Golden['kind'];
  rows: Row[];
  /** What the folder holds that is not compared, because the format does not know it. */
  unknown?: string[];
}

export interface VerifyOptions {
  /** A folder with `case.json` and `tensors.safetensors`, or `data.json` and `data.safetensors`, or one that holds several such folders. */
  golden: string;
  /** Where operators and models are computed; data cases need none. */
  device?: Device;
  /** A file that receives everything: `{adapter, ok, cases: [{name, kind, rows}]}`; the adapter is null where none was needed. */
  json?: string;
  /** Told of each finished operator case or training step of the case `name`. */
  progress?: (name: string, ...told: Parameters<Progress>) => void;
}

/**
 * Opens every case once, so that what cannot be read is told before any is computed.
 * @returns whether one of them needs a device
 * @throws UserError naming the first folder that cannot be read
 */
export function needsDevice(golden: string): boolean {
  const kinds = goldenFolders(golden).map((folder) => {
    const { kind, tensors } = openGolden(folder);
    tensors.close();
    return kind;
  });
  return kinds.some((kind) => kind !== 'data');
}

/**
 * Computes golden cases, on a device where they need one, and compares every value that they hold, with the tolerances of the
 * goldens' README.
 * @throws UserError when a folder cannot be read; values that are off are rows, not errors.
 */
export async function runVerify({ golden, device, json, progress }: VerifyOptions): Promise<VerifiedCase[]> {
  const cases: VerifiedCase[] = [];
  for (const folder of goldenFolders(golden)) {
    const opened = openGolden(folder);
    const { name, kind } = opened;
    const tell: Progress = (...told) => progress?.(name, ...told);
    try {
      if (opened.kind === 'data') {
        const { unknown } = opened;
        cases.push({ name, kind, rows: verifyData(opened, tell), ...(unknown.length > 0 ? { unknown } : {}) });
        continue;
      }
      if (device === undefined) throw new Error(`runVerify: the case ${name} needs a device.`);
      const rows =
        opened.kind === 'ops' ? await verifyOps(device, opened, tell) : await verifyModel(device, opened, tell);
      cases.push({ name, kind, rows });
    } finally {
      opened.tensors.close();
    }
  }
  if (json !== undefined) {
    const ok = cases.every(({ rows }) => rows.every((row) => row.ok));
    const info = device?.gpu.opened.info;
    const adapter = info === undefined ? null : { name: info.name, kind: info.kind };
    writeFileAtomic(json, `${JSON.stringify({ adapter, ok, cases }, null, 1)}\n`);
  }
  return cases;
}
