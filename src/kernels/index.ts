/** Every operator, so that importing this file registers all of them. */
export * from './relu.ts';
