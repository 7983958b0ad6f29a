"""How fast the parts of a system are: `python -m hvae_tpu.bench NAME [--config=...] [--parts=...]`.

A benchmark is a module of this package with `run(config, rounds, parts)`, which yields lines to
print as they are found; no `parts` stands for all of them. Sizes are those of the config:
`--config.train.batch_size=2` is another batch.
"""

# By name, the config that is measured where none is given.
BENCHMARKS = {'cwvae': 'configs/minerl.py'}
