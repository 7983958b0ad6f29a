"""How fast the parts of a system are: `python -m hvae_tpu.bench NAME [--config=...] [--rounds=N]`.

A benchmark is a module with `CONFIG`, the config that it measures by default, and `run(config,
rounds) -> list of lines`. Sizes are those of the config: `--config.train.batch_size=2` is another
batch.
"""

from hvae_tpu.bench import cwvae

BENCHMARKS = {'cwvae': cwvae}
