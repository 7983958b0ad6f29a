"""Hierarchical VAEs in JAX: training, evaluation and use."""

from typing import Any


def load(workdir: str, checkpoint: str = 'latest', weights: str = 'ema') -> tuple:
  """Opens a trained run, for notebooks.

  Args:
    workdir: of the run.
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
  from hvae_tpu.training.state import eval_params

  evals.check_weights(weights, 'weights')
  run = restore.open_run(workdir, str(checkpoint), weights=evals.WEIGHTS[weights])
  params: Any = eval_params(run.state, weights)
  return run.model, params, run.state.model_state, run.config
