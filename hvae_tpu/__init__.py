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
    UserError: there is no such run or checkpoint.
  """
  # Imported late, so that importing a submodule does not start everything.
  from hvae_tpu import evals
  from hvae_tpu.runs import restore

  evals.check_weights(weights, 'weights')
  loaded = restore.open_run(workdir, str(checkpoint), weights=evals.WEIGHTS[weights]).select(
    weights
  )
  return loaded.model, loaded.params, loaded.model_state, loaded.config
