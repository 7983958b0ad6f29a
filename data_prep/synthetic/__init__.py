"""Generators of synthetic data sets; every example is a function of (seed, split, index)."""
