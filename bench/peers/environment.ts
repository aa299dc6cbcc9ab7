/** How the bench tells its children of the adapter: its name, as Dawn lists it, and whether it computes on the CPU (1 or 0). */
export const ADAPTER_VARIABLE = 'BENCH_PEER_ADAPTER';
export const SOFTWARE_VARIABLE = 'BENCH_PEER_SOFTWARE';
