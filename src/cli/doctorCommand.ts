import Table from 'cli-table3';
import { Command } from 'commander';
import { writeFileAtomic } from '../data/files.ts';
import { parseAdapterChoice } from '../gpu/adapter.ts';
import { openDevice } from '../gpu/nodeAdapter.ts';
import { Device } from '../tensor/device.ts';
import { checkDevice, measureDevice } from '../verify/selfTest.ts';
import { adapterOption, say } from './session.ts';

const SHOWN_LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupStorageSize',
  'maxComputeWorkgroupsPerDimension',
] as const;

export function doctorCommand(): Command {
  return new Command('doctor')
    .description(
      'Show the adapters of this machine, which one is used and why, whether it computes rightly and how fast.',
    )
    .option('--json <file>', 'write the findings here')
    .addOption(adapterOption())
    .action(async ({ adapter, json }: { adapter: string; json?: string }) => {
      const opened = await openDevice(parseAdapterChoice(adapter), true);
      const device = new Device(opened);
      try {
        const plain = { head: [] as string[], border: [] as string[] };
        const adapters = new Table({ head: ['', 'kind', 'adapter', 'driver', 'usable'], style: plain });
        for (const found of opened.found) {
          const chosen = found === opened.info ? '→' : '';
          adapters.push([
            chosen,
            found.kind,
            found.name,
            found.driver ?? found.description,
            found.usable ? 'yes' : `no: ${found.reason}`,
          ]);
        }
        console.log(adapters.toString());
        console.log(`Chosen: ${opened.info.name}. ${opened.why}`);
        const { limits, features } = opened.device;
        const subgroups =
          opened.subgroupMaxSize > 0 ? `${opened.subgroupMinSize}…${opened.subgroupMaxSize} lanes` : 'none';
        const facts = new Table({ style: plain });
        for (const name of SHOWN_LIMITS) facts.push([name, limits[name].toLocaleString('en')]);
        facts.push(['subgroups', subgroups], ['features', [...features].sort().join('\n')]);
        console.log(facts.toString());

        const checks = await checkDevice(device);
        const results = new Table({ head: ['self-test', 'error', 'allowed', ''], style: plain });
        for (const { name, error, tolerance } of checks) {
          results.push([
            name,
            error.toExponential(1),
            tolerance.toExponential(0),
            error <= tolerance ? 'right' : 'WRONG',
          ]);
        }
        console.log(results.toString());
        const speed = await measureDevice(device);
        console.log(
          `Speed: ${speed.gflops.toFixed(1)} GFLOP/s in a matmul of ${speed.matmulSize}³, ${speed.gigabytesPerSecond.toFixed(1)} GB/s in an addition.`,
        );
        if (json) {
          const limitsFound = Object.fromEntries(SHOWN_LIMITS.map((name) => [name, limits[name]]));
          const report = {
            chosen: opened.info,
            why: opened.why,
            found: opened.found,
            limits: limitsFound,
            features: [...features].sort(),
            checks,
            speed,
          };
          writeFileAtomic(json, `${JSON.stringify(report, null, 2)}\n`);
        }
        if (checks.some(({ error, tolerance }) => !(error <= tolerance))) {
          say(`${opened.info.name} computes wrongly; choose another with --adapter, or update its driver.`);
          process.exitCode = 1;
        }
      } finally {
        await device.gpu.close();
      }
    });
}
