"""The benchmarks in the layouts in which they are published."""
