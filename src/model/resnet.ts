import { maxPool2d } from '../kernels/maxPool2d.ts';
import { checkpoint } from '../tensor/checkpoint.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { MaskRCNNConfig } from './config.ts';
import { kaimingNormalFanOut } from './initializers.ts';
import { ConvNorm } from './layers.ts';
import type { StateDict } from './stateDict.ts';

type BodyConfig = Pick<MaskRCNNConfig, 'block' | 'layers' | 'width' | 'norm' | 'batchNormEps'>;

interface Block {
  readonly trainable: boolean;
  forward(x: Tensor, training: boolean): Tensor;
}

/** What a block is made of: the convolutions of its residual branch in order, the last of them without its own ReLU. */
function branch(config: BodyConfig, inChannels: number, planes: number, stride: number) {
  return config.block === 'basic'
    ? [
        { in: inChannels, out: planes, kernel: 3, stride, padding: 1 },
        { in: planes, out: planes, kernel: 3, stride: 1, padding: 1 },
      ]
    : [
        { in: inChannels, out: planes, kernel: 1, stride: 1, padding: 0 },
        // torchvision's ResNet v1.5: the stride is on the 3×3.
        { in: planes, out: planes, kernel: 3, stride, padding: 1 },
        { in: planes, out: planes * 4, kernel: 1, stride: 1, padding: 0 },
      ];
}

/** torchvision's BasicBlock or Bottleneck: relu(branch(x) + shortcut(x)). */
class ResidualBlock implements Block {
  readonly #branch: ConvNorm[];
  readonly #downsample: ConvNorm | null;

  constructor(state: StateDict, name: string, config: BodyConfig, inChannels: number, planes: number, stride: number) {
    const parts = branch(config, inChannels, planes, stride);
    this.#branch = parts.map(
      (part, index) =>
        new ConvNorm(
          state,
          { conv: `${name}.conv${index + 1}`, norm: `${name}.bn${index + 1}` },
          part,
          part,
          config,
          kaimingNormalFanOut,
        ),
    );
    const out = parts[parts.length - 1].out;
    this.#downsample =
      stride !== 1 || inChannels !== out
        ? new ConvNorm(
            state,
            { conv: `${name}.downsample.0`, norm: `${name}.downsample.1` },
            { in: inChannels, out },
            { kernel: 1, stride },
            config,
            kaimingNormalFanOut,
          )
        : null;
  }

  get trainable(): boolean {
    return [...this.#branch, ...(this.#downsample ? [this.#downsample] : [])].some((part) => part.trainable);
  }

  forward(x: Tensor, training: boolean): Tensor {
    return x.device.scope(() => {
      const residual = this.#downsample ? this.#downsample.forward(x, { training }) : x;
      const last = this.#branch.length - 1;
      return this.#branch.reduce(
        (y, conv, index) => conv.forward(y, { training, relu: true, residual: index === last ? residual : undefined }),
        x,
      );
    });
  }
}

/**
 * torchvision's ResNet without its classifier (`torchvision/models/resnet.py`), [N, H, W, 4] (the fourth channel 0) → the outputs of layer1 … layer4,
 * at 1/4, 1/8, 1/16 and 1/32 of the size. Entries are named `<name>.conv1.weight`, `<name>.layer1.0.bn1.weight` and so on.
 */
export class ResNet {
  /** Channels of the four outputs. */
  readonly outChannels: number[];
  readonly #stem: ConvNorm;
  readonly #layers: Block[][];

  constructor(state: StateDict, name: string, config: BodyConfig) {
    const { width } = config;
    const expansion = config.block === 'basic' ? 1 : 4;
    this.#stem = new ConvNorm(
      state,
      { conv: `${name}.conv1`, norm: `${name}.bn1` },
      { in: 3, out: width },
      { kernel: 7, stride: 2, padding: 3, stem: true },
      config,
      kaimingNormalFanOut,
    );
    let inChannels = width;
    this.#layers = config.layers.map((depth, layer) => {
      const planes = width * 2 ** layer;
      return Array.from({ length: depth }, (_, index) => {
        const stride = layer > 0 && index === 0 ? 2 : 1;
        const block = new ResidualBlock(
          state,
          `${name}.layer${layer + 1}.${index}`,
          config,
          inChannels,
          planes,
          stride,
        );
        inChannels = planes * expansion;
        return block;
      });
    });
    this.outChannels = [1, 2, 4, 8].map((factor) => width * factor * expansion);
  }

  /**
   * @param checkpointed computes each layer's activations (layer1's with the stem's) again in the backward pass, instead of keeping them
   */
  forward(x: Tensor, training: boolean, checkpointed = false): Tensor[] {
    const stem = (input: Tensor): Tensor =>
      maxPool2d(this.#stem.forward(input, { training, relu: true }), { kernelSize: 3, stride: 2, padding: 1 });
    return x.device.scope(() => {
      let y = x;
      return this.#layers.map((blocks, layer) => {
        const stage = (input: Tensor): Tensor =>
          x.device.scope(() =>
            blocks.reduce((z, block) => block.forward(z, training), layer === 0 ? stem(input) : input),
          );
        // What is frozen keeps no activations anyway.
        const keeps =
          y.requiresGrad || blocks.some(({ trainable }) => trainable) || (layer === 0 && this.#stem.trainable);
        y = checkpointed && keeps ? checkpoint(y, stage) : stage(y);
        return y;
      });
    });
  }
}
