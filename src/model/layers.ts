import { batchNorm2d } from '../kernels/batchNorm.ts';
import { conv2d } from '../kernels/conv2d.ts';
import { linear } from '../kernels/linear.ts';
import { mapList, type PaddedList } from '../kernels/listParts.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { constant, type Initializer, torchDefaultBias, torchDefaultWeight } from './initializers.ts';
import { type Layout, STEM_CHANNELS } from './layouts.ts';
import { Entry, type StateDict } from './stateDict.ts';

export interface Conv2dOptions {
  stride?: number;
  padding?: number;
  relu?: boolean;
  weightInit?: Initializer;
  biasInit?: Initializer;
}

/** torch.nn.Conv2d with bias, on [N, H, W, C]; an optional ReLU is its epilogue. */
export class Conv2d {
  readonly #weight: Entry;
  readonly #bias: Entry;
  readonly #options: Conv2dOptions;

  constructor(
    state: StateDict,
    name: string,
    inChannels: number,
    outChannels: number,
    kernel: number,
    options: Conv2dOptions = {},
  ) {
    const shape = [outChannels, inChannels, kernel, kernel];
    this.#options = options;
    this.#weight = state.declare(
      new Entry(`${name}.weight`, shape, { layout: { kind: 'conv' }, init: options.weightInit ?? torchDefaultWeight }),
    );
    this.#bias = state.declare(
      new Entry(`${name}.bias`, [outChannels], { init: options.biasInit ?? torchDefaultBias(shape) }),
    );
  }

  /** @param residual like the output, added before the ReLU */
  forward(x: Tensor, residual?: Tensor): Tensor {
    const { stride = 1, padding = 0, relu = false } = this.#options;
    return conv2d(x, this.#weight.tensor, { bias: this.#bias.tensor, stride, padding, relu, residual });
  }
}

/** torch.nn.Linear on [M, K]; `maps` when K is a flattened feature map. */
export class Linear {
  readonly #weight: Entry;
  readonly #bias: Entry;

  constructor(
    state: StateDict,
    name: string,
    inFeatures: number,
    outFeatures: number,
    maps?: readonly [number, number, number],
  ) {
    const shape = [outFeatures, inFeatures];
    const layout: Layout = maps ? { kind: 'linearOverMaps', maps } : { kind: 'linear' };
    this.#weight = state.declare(new Entry(`${name}.weight`, shape, { layout, init: torchDefaultWeight }));
    this.#bias = state.declare(new Entry(`${name}.bias`, [outFeatures], { init: torchDefaultBias(shape) }));
  }

  forward(x: Tensor, relu = false): Tensor {
    return linear(x, this.#weight.tensor, this.#bias.tensor, { relu });
  }
}

export interface NormConfig {
  norm: 'frozen' | 'batch';
  batchNormEps: number;
}

/**
 * A convolution without bias and the norm that follows it, with the residual addition and ReLU behind them.
 * FrozenBatchNorm2d (torchvision.ops.misc) is a constant scale and shift per channel, so it is folded into the convolution's
 * epilogue; BatchNorm2d normalises with the batch's statistics in training.
 */
export class ConvNorm {
  readonly #weight: Entry;
  readonly #norm: Record<'weight' | 'bias' | 'running_mean' | 'running_var', Entry>;
  readonly #config: NormConfig;
  readonly #stride: number;
  readonly #padding: number;
  readonly #zeroChannels: number;
  #folded: { scale: Tensor; shift: Tensor } | null = null;

  constructor(
    state: StateDict,
    names: { conv: string; norm: string },
    channels: { in: number; out: number },
    geometry: { kernel: number; stride?: number; padding?: number; stem?: boolean },
    config: NormConfig,
    init: Initializer,
  ) {
    this.#stride = geometry.stride ?? 1;
    this.#padding = geometry.padding ?? 0;
    this.#zeroChannels = geometry.stem ? STEM_CHANNELS - channels.in : 0;
    this.#config = config;
    this.#weight = state.declare(
      new Entry(`${names.conv}.weight`, [channels.out, channels.in, geometry.kernel, geometry.kernel], {
        layout: { kind: geometry.stem ? 'stem' : 'conv' },
        init,
      }),
    );
    const vector = (leaf: string, value: number, trainable: boolean): Entry =>
      state.declare(new Entry(`${names.norm}.${leaf}`, [channels.out], { init: constant(value), trainable }));
    const affine = config.norm === 'batch';
    this.#norm = {
      weight: vector('weight', 1, affine),
      bias: vector('bias', 0, affine),
      running_mean: vector('running_mean', 0, false),
      running_var: vector('running_var', 1, false),
    };
    if (config.norm === 'frozen') {
      state.onLoad(() => this.#fold());
      state.onDispose(() => this.#unfold());
    }
  }

  /** Whether anything of it is trained. */
  get trainable(): boolean {
    return this.#weight.trainable || this.#norm.weight.trainable;
  }

  /** scale = weight / √(var + eps), shift = bias - mean · scale; done on the host, in float32 as torch does. */
  async #fold(): Promise<void> {
    const { weight, bias, running_mean, running_var } = this.#norm;
    const { device } = weight.tensor;
    const [w, b, mean, variance] = await Promise.all(
      [weight, bias, running_mean, running_var].map((entry) => entry.tensor.floats()),
    );
    const eps = this.#config.batchNormEps;
    const scale = w.map((value, c) => value * Math.fround(1 / Math.sqrt(Math.fround(variance[c] + eps))));
    const shift = b.map((value, c) => value - Math.fround(mean[c] * scale[c]));
    this.#unfold();
    const keep = (data: Float32Array): Tensor =>
      device.detached(() => device.tagged('parameters', () => device.tensor(data, [data.length])));
    this.#folded = { scale: keep(scale), shift: keep(shift) };
  }

  #unfold(): void {
    this.#folded?.scale.dispose();
    this.#folded?.shift.dispose();
    this.#folded = null;
  }

  /** @param options `list`: images of x that are padding do not count in training, and what is computed in parts leaves them out */
  forward(x: Tensor, options: { training: boolean; relu?: boolean; residual?: Tensor; list?: PaddedList }): Tensor {
    const { training, relu = false, residual, list } = options;
    const geometry = { stride: this.#stride, padding: this.#padding, zeroChannels: this.#zeroChannels };
    if (this.#folded) {
      const { scale, shift } = this.#folded;
      return conv2d(x, this.#weight.tensor, { ...geometry, scale, bias: shift, residual, relu });
    }
    const { weight, bias, running_mean, running_var } = this.#norm;
    return x.device.scope(() =>
      batchNorm2d(
        mapList(list, x, (part) => conv2d(part, this.#weight.tensor, geometry)),
        { weight: weight.tensor, bias: bias.tensor },
        { runningMean: running_mean.tensor, runningVar: running_var.tensor },
        { training, eps: this.#config.batchNormEps, relu, residual, count: training ? list?.count : undefined },
      ),
    );
  }
}

/**
 * torchvision's Conv2dNormActivation (`torchvision/ops/misc.py`) of stride 1 that keeps the size: `<name>.0` a convolution, with
 * bias where no norm follows it; `<name>.1` BatchNorm2d where `headNorm` is `batch`; then, if `relu`, ReLU.
 */
export class Conv2dNormActivation {
  readonly #relu: boolean;
  readonly #layer: Conv2d | ConvNorm;

  constructor(
    state: StateDict,
    name: string,
    channels: { in: number; out: number },
    options: { kernel: number; relu: boolean; init: Initializer },
    config: { headNorm: 'none' | 'batch'; batchNormEps: number },
  ) {
    const { kernel, relu, init } = options;
    const padding = (kernel - 1) / 2;
    this.#relu = relu;
    this.#layer =
      config.headNorm === 'none'
        ? new Conv2d(state, `${name}.0`, channels.in, channels.out, kernel, {
            padding,
            relu,
            weightInit: init,
            biasInit: constant(0),
          })
        : new ConvNorm(
            state,
            { conv: `${name}.0`, norm: `${name}.1` },
            channels,
            { kernel, padding },
            { norm: 'batch', batchNormEps: config.batchNormEps },
            init,
          );
  }

  /** @param options `residual`, like the output, is added before the ReLU; for `list` see `ConvNorm` */
  forward(x: Tensor, training: boolean, options: { residual?: Tensor; list?: PaddedList } = {}): Tensor {
    const { residual, list } = options;
    const layer = this.#layer;
    return layer instanceof Conv2d
      ? mapList(list, x, (part) => layer.forward(part, residual))
      : layer.forward(x, { training, relu: this.#relu, residual, list });
  }
}
