import { add } from '../kernels/arithmetic.ts';
import { interpolateNearest } from '../kernels/interpolate.ts';
import { maxPool2d } from '../kernels/maxPool2d.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { constant, kaimingUniformA1 } from './initializers.ts';
import { Conv2d } from './layers.ts';
import type { StateDict } from './stateDict.ts';

/**
 * torchvision's FeaturePyramidNetwork with LastLevelMaxPool (`torchvision/ops/feature_pyramid_network.py`): maps of 1/4 … 1/32
 * → five maps of `outChannels`, fine to coarse. The last is the coarsest map at every second pixel.
 */
export class FeaturePyramidNetwork {
  readonly #inner: Conv2d[];
  readonly #layer: Conv2d[];

  constructor(state: StateDict, name: string, inChannels: readonly number[], outChannels: number) {
    const init = { weightInit: kaimingUniformA1, biasInit: constant(0) };
    this.#inner = inChannels.map(
      (channels, i) => new Conv2d(state, `${name}.inner_blocks.${i}.0`, channels, outChannels, 1, init),
    );
    this.#layer = inChannels.map(
      (_, i) => new Conv2d(state, `${name}.layer_blocks.${i}.0`, outChannels, outChannels, 3, { padding: 1, ...init }),
    );
  }

  forward(features: readonly Tensor[]): Tensor[] {
    return features[0].device.scope(() => {
      const last = features.length - 1;
      const results: Tensor[] = [];
      let top = this.#inner[last].forward(features[last]);
      results[last] = this.#layer[last].forward(top);
      for (let i = last - 1; i >= 0; i--) {
        const lateral = this.#inner[i].forward(features[i]);
        top = add(lateral, interpolateNearest(top, { size: [lateral.shape[1], lateral.shape[2]] }));
        results[i] = this.#layer[i].forward(top);
      }
      results.push(maxPool2d(results[last], { kernelSize: 1, stride: 2, padding: 0 }));
      return results;
    });
  }
}
