import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** The Python to compare with: of the variable TORCH_PYTHON, else `python3`. */
const python = process.env.TORCH_PYTHON || 'python3';

/** Null where that Python has torch and torchvision, else why tests that need it are skipped. */
export function torchUnfit(): string | null {
  const { status, error, stderr } = spawnSync(python, ['-c', 'import torch, torchvision'], { encoding: 'utf8' });
  if (status === 0) return null;
  const reason = error ? error.message : (stderr.trim().split('\n').at(-1) ?? '');
  return `${python} has no torch and torchvision here (${reason}); TORCH_PYTHON may name another`;
}

/** Runs a job of test/python/torch_peer.py. @throws Error with what Python said when it fails */
export function torchPeer(job: Record<string, unknown>): void {
  const folder = mkdtempSync(join(tmpdir(), 'torch-peer-'));
  try {
    const path = join(folder, 'job.json');
    writeFileSync(path, JSON.stringify(job));
    const script = resolve(import.meta.dirname, '../python/torch_peer.py');
    const { status, stderr, stdout } = spawnSync(python, [script, path], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`torch_peer.py ${job.do} failed:\n${stdout}${stderr}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
