"""Benchmarks of parts of a system: `python -m hvae_tpu.bench NAME [--config=...] [--parts=...]`.

A benchmark is a module of this package with `run(config, rounds, parts)`, which yields lines to
print; empty `parts` selects all parts. Sizes come from the config, so
`--config.train.batch_size=2` changes the batch.
"""

# Name of a benchmark -> its default config.
BENCHMARKS = {'cwvae': 'configs/minerl.py'}
