"""Hand-written kernels, compiled for the CPU at hand.  `minibert` works without this package.

`build.load` gives the library, `encoder.Encoder` runs a network on it.  The sources, with what
bounds each of them, are in `cpu/`.
"""
