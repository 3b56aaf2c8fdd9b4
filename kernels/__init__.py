"""Hand-written kernels; none yet.  `minibert.ops` works without this package."""
