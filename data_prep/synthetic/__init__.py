"""Drawing of synthetic data sets; every number drawn is a function of (seed, split, index)."""
