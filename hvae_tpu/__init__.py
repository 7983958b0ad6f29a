"""Hierarchical VAEs in JAX: training, evaluation and use."""


def load(workdir: str, checkpoint: str = 'latest', weights: str = 'ema') -> tuple:
  """Opens a trained run, for notebooks.

  Args:
    workdir: work directory of the run.
    checkpoint: 'latest', 'best' or a step.
    weights: 'ema' or 'raw'.

  Returns:
    (model, params, state, config): `model.sample(params, state, jax.random.key(0), 8)` and so on;
    see `models/protocol.py`.

  Raises:
    UserError: there are no such weights, run or checkpoint.
  """
  # Imported late, so that importing a submodule does not start everything.
  from hvae_tpu.errors import UserError
  from hvae_tpu.runs import restore

  if weights not in ('ema', 'raw'):
    raise UserError(f"weights={weights!r} must be 'ema' or 'raw'")
  loaded = restore.open_run(workdir, str(checkpoint), weights=(weights,)).select(weights)
  return loaded.model, loaded.params, loaded.model_state, loaded.config
