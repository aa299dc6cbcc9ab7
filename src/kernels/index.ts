/** Every operator, so that importing this file registers all of them. */

export * from './activations.ts';
export * from './arithmetic.ts';
export * from './batchNorm.ts';
export * from './boxes.ts';
export * from './cast.ts';
export * from './conv2d.ts';
export * from './convTranspose2d.ts';
export * from './gradScaler.ts';
export * from './interpolate.ts';
export * from './linear.ts';
export * from './listParts.ts';
export * from './losses.ts';
export * from './masks.ts';
export * from './matcher.ts';
export * from './matmul.ts';
export * from './maxPool2d.ts';
export * from './multiScaleRoiAlign.ts';
export * from './nms.ts';
export * from './reduce.ts';
export * from './roiAlign.ts';
export * from './sgd.ts';
export * from './shape.ts';
export * from './softmax.ts';
export * from './topK.ts';
