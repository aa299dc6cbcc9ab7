import { interpolateNearest } from '../kernels/interpolate.ts';
import { maxPool2d } from '../kernels/maxPool2d.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { MaskRCNNConfig } from './config.ts';
import { kaimingUniformA1 } from './initializers.ts';
import { Conv2dNormActivation } from './layers.ts';
import type { StateDict } from './stateDict.ts';

type FpnConfig = Pick<MaskRCNNConfig, 'fpnChannels' | 'headNorm' | 'batchNormEps'>;

/**
 * torchvision's FeaturePyramidNetwork with LastLevelMaxPool (`torchvision/ops/feature_pyramid_network.py`): maps of 1/4 … 1/32
 * → five maps of `outChannels`, fine to coarse. The last is the coarsest map at every second pixel.
 */
export class FeaturePyramidNetwork {
  readonly #inner: Conv2dNormActivation[];
  readonly #layer: Conv2dNormActivation[];

  constructor(state: StateDict, name: string, inChannels: readonly number[], config: FpnConfig) {
    const out = config.fpnChannels;
    const block = (part: string, channels: number, kernel: number): Conv2dNormActivation =>
      new Conv2dNormActivation(
        state,
        `${name}.${part}`,
        { in: channels, out },
        { kernel, relu: false, init: kaimingUniformA1 },
        config,
      );
    this.#inner = inChannels.map((channels, i) => block(`inner_blocks.${i}`, channels, 1));
    this.#layer = inChannels.map((_, i) => block(`layer_blocks.${i}`, out, 3));
  }

  forward(features: readonly Tensor[], training: boolean): Tensor[] {
    return features[0].device.scope(() => {
      const last = features.length - 1;
      const results: Tensor[] = [];
      let top = this.#inner[last].forward(features[last], training);
      results[last] = this.#layer[last].forward(top, training);
      for (let i = last - 1; i >= 0; i--) {
        const [, height, width] = features[i].shape;
        top = this.#inner[i].forward(features[i], training, {
          residual: interpolateNearest(top, { size: [height, width] }),
        });
        results[i] = this.#layer[i].forward(top, training);
      }
      results.push(maxPool2d(results[last], { kernelSize: 1, stride: 2, padding: 0 }));
      return results;
    });
  }
}
