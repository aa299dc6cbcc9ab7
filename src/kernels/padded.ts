import type { Tensor } from '../tensor/tensor.ts';

/*
 * Lists whose lengths only the device knows have as many places as they may need, and a count each. Put together, lists stand one
 * after another, so that all padding is at the end.
 */

/** Boxes of a batch on the device: f32 [R, P, 4], and u32 [R] how many each image has. */
export interface PaddedBoxes {
  boxes: Tensor;
  counts: Tensor;
}

/** WGSL for a program with the binding `counts`: `placeOf`. */
export const placeWgsl = `
// Of so many lists put together: the list that place i belongs to (one beyond the last for padding), and the place within it.
fn placeOf(i: u32, lists: u32) -> vec2u {
  var place = vec2u(0u, i);
  while (place.x < lists && place.y >= counts[place.x]) {
    place.y -= counts[place.x];
    place.x++;
  }
  return place;
}
`;
