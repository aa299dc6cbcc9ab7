import { backward, edgeTo } from './autograd.ts';
import type { Tensor } from './tensor.ts';

/*
 * Activation checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"; torch.utils.checkpoint): the forward pass keeps
 * the input of a part of the model and nothing inside it; the backward pass computes the part once more, with its graph, and goes back
 * through that.
 */

/**
 * body(x), whose activations are not kept but computed again when its gradient is wanted. Losses and gradients have the same bits as
 * without: the second pass runs the same commands on the same values, and adds to the gradients in the same order. What `body` changes while gradients
 * are recorded (running statistics of batch norms) changes in the second pass alone. Without recording it is body(x).
 *
 * @param body computes one tensor from x and parameters, and depends on nothing that changes before the backward pass
 */
export function checkpoint(x: Tensor, body: (x: Tensor) => Tensor): Tensor {
  const { device } = x;
  if (!device.gradEnabled) return body(x);
  const output = device.noGrad(() => device.scope(() => body(x)));
  const { label } = device.gpu;
  const kept = x.view(x.shape);
  const { requiresGrad } = x;
  const recompute = (upstream: Tensor, into?: Tensor): Tensor | null => {
    const leaf = kept.view(kept.shape);
    leaf.requiresGrad = requiresGrad;
    leaf.grad = into ?? null;
    device.labelled(label, () =>
      device.withGrad(() =>
        device.scope(() => {
          const again = device.tagged('activations', () => body(leaf));
          // A part without trainable parameters on an input without a gradient has nothing to go back through.
          if (again.node) backward(device, again, upstream);
        }),
      ),
    );
    const { grad } = leaf;
    leaf.dispose();
    return grad;
  };
  const node = device.record({
    operator: 'checkpoint',
    edges: requiresGrad ? [edgeTo('x', x)] : [],
    saved: { x: kept },
    backward: (upstream) => {
      if (requiresGrad) return { x: (into) => recompute(upstream, into) ?? device.zeros(x.shape, x.dtype) };
      recompute(upstream);
      return {};
    },
  });
  output.requiresGrad = true;
  output.node = node;
  return output;
}
