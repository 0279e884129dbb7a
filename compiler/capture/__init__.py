"""From a local problem to pure ATen kernels: differentiation at compile time."""
