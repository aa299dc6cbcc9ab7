const root = '/tmp/w/f16'; const im = (p: string) => import(`${root}/${p}`);
const { openDevice } = await im('src/gpu/nodeAdapter.ts'); const { Device } = await im('src/tensor/device.ts');
const { completeTrainOptions } = await im('src/train/options.ts'); const { planRun, allocateRun } = await im('src/train/run.ts');
const { ensureSyntheticDataset } = await im('src/data/synthetic.ts'); const { Loader } = await im('src/data/loader.ts'); const { Random } = await im('src/data/random.ts');
const { trainStep } = await im('src/train/step.ts'); const { GradScaler } = await im('src/kernels/gradScaler.ts'); const { learningRate } = await im('src/train/schedule.ts');
const device = new Device(await openDevice('lavapipe'));
const model = JSON.parse(process.argv[2] ?? '{}'); const seeds = (process.argv[3] ?? '1000').split(',').map(Number); const which = (process.argv[4] ?? 'f32,f32p,f16').split(',');
const lrf = Number(process.argv[5] ?? 1);
for (const seed of seeds) { const res: any = {};
for (const name of which) {
  const precision = name.slice(0, 3); const options = completeTrainOptions({ precision, model }); const run = planRun(options, ensureSyntheticDataset(), ''); await allocateRun(run, device);
  const batches: any[] = []; for await (const b of new Loader({ dataset: run.dataset, records: run.split.train.slice(0, 20), batchSize: 2, random: 1, resize: 0.5, workers: 0 })) batches.push(b);
  if (name.endsWith('p')) { const flat = run.model.state.parameters; const r = new Random(9); for (const n of flat.names) { const d = await flat.tensor(n).floats(); for (let i=0;i<d.length;i++) d[i] *= 1 + ((i*7919)%13/6-1)*3e-4; flat.write(n, d); } }
  const scaler = precision === 'f16' ? new GradScaler(device) : undefined; let d = 0; const draws = (n: number) => new Random(seed + d++).permutation(n);
  const sums = [0,0,0,0,0]; for (let s = 0; s < 50; s++) { const l = await trainStep(run.model, batches[s % 10], draws, { ...options, lr: lrf * learningRate(s, 30, options), scaler }); (await l.values.floats()).forEach((v: number, k: number) => { sums[k] += v / 50; }); l.values.dispose(); }
  res[name] = sums; run.model.dispose(); scaler?.dispose();
  const b = res[which[0]]; const t = (x: number[]) => x.reduce((p, q) => p + q);
  console.log(seed, name, sums.map((v, k) => `${v.toFixed(3)} ${((v/b[k]-1)*100).toFixed(2)}%`).join('  '), 'total', ((t(sums)/t(b)-1)*100).toFixed(2)+'%');
} }
process.exit(0);
