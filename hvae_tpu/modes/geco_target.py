"""`--mode=geco_target`: a short training that proposes `config.model.geco_target`.

The heuristic of EfficientMORL's authors: guess a target, train a tenth of the steps, and take the
negative log-likelihood that was reached once the objects were found.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import ml_collections

from hvae_tpu import evals, models
from hvae_tpu.devices import sharding
from hvae_tpu.devices.distributed import print_once
from hvae_tpu.devices.interruption import Interruption
from hvae_tpu.errors import UserError
from hvae_tpu.models import protocol
from hvae_tpu.modes import loaded_run
from hvae_tpu.runs.metric_writer import Writer
from hvae_tpu.settings import setting
from hvae_tpu.storage import files
from hvae_tpu.training import setup
from hvae_tpu.training.loop import loop
from hvae_tpu.training.state import create_state
from hvae_tpu.training.step import Step, trace_step

NEEDS = ('reconstruction_target', 'warnings', 'segment', 'level_names')
FOLDERS = ('geco_target',)
LEAST_ARI = 0.5  # least foreground ARI at which objects count as found


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of `--mode=geco_target`."""

  share: float = setting(0.1, least=0, most=1)  # fraction of train.num_steps to train


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Trains some of the steps; writes `<run>/geco_target/proposal.json`. Returns the exit code.

  Metrics of the training are written beside it, but no checkpoint.

  Raises:
    UserError: a model without GECO, or a share that leaves no step.
  """
  del checkpoint  # every trial begins anew
  share = loaded_run.read_options(Options, config, 'geco_target').share
  steps = int(share * config.train.num_steps)
  if not getattr(config.model, 'use_geco', False):
    raise UserError(
      '--mode=geco_target needs a model with config.model.use_geco=True; EfficientMORL has it'
    )
  if not steps:
    raise UserError(
      f'config.geco_target.share={share} of config.train.num_steps='
      f'{config.train.num_steps} must lie between one step and all'
    )
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, spatial=config.mesh.spatial)
  sharding.check_batch_size(config.train.batch_size, mesh)
  model, tx, step = setup.train_step(config, mesh)
  protocol.require(model, NEEDS, '--mode=geco_target')
  dataset = setup.open_data(config)
  for text in model.warnings(dataset.card):
    print_once(f'warning: {text}')
  folder = workdir / 'geco_target'
  state, interruption = _train(config, (model, tx, step), dataset, mesh, steps, folder)
  if interruption.requested:
    print_once('stopped; nothing was proposed')
    return interruption.exit_code
  proposal = _proposal(config, model, dataset, mesh, state)
  if jax.process_index() == 0:
    files.save_json(folder / 'proposal.json', proposal, strict=False)
    print(_describe(proposal))
  return 0


def _train(
  config: ml_collections.ConfigDict,
  training: tuple[Any, Any, Step],
  dataset: Any,
  mesh: Any,
  steps: int,
  folder: Path,
) -> tuple[Any, Interruption]:
  """Trains that many steps with the results of `setup.train_step`; returns the state."""
  model, tx, step = training
  options = ml_collections.ConfigDict(config.train)
  options.num_steps = steps
  first, interruption = jax.process_index() == 0, Interruption()
  batches = setup.train_batches(dataset, config, mesh, 0)
  writer = Writer(folder, active=first, level_names=model.level_names)
  with interruption:
    try:
      batch = next(batches)
      state = create_state(model, tx, batch, mesh, config.train.ema_decay is not None, config.seed)
      print_once('compiling the train step ...')
      compiled = trace_step(step, state, batch).lower().compile()
      state = loop(
        state,
        compiled,
        batches,
        options,
        start=0,
        evaluations=[],
        save=lambda *_: None,
        diagnose=lambda step, *_: print_once(f'the loss of step {step:,} is not finite'),
        writer=writer,
        interruption=interruption,
      )
    finally:
      batches.close()
      writer.close()
  return state, interruption


def _proposal(
  config: ml_collections.ConfigDict, model: Any, dataset: Any, mesh: Any, state: Any
) -> dict[str, Any]:
  """Measures the state on the validation view, and proposes a target, nats per dimension."""
  inferring = models.create(config.model.to_dict(), sharding.platform(mesh), differentiated=False)
  batches = setup.eval_batches(dataset, config, mesh, 'valid')
  results = evals.create('segmentation', config.evals, inferring, batches, config.seed)(state)
  constraint = model.reconstruction_target(state.model_state)
  reached = float(results['nll']) / constraint.num_dims
  return {
    'steps': int(state.step),
    'geco_target': round(reached, 4),
    'nll_total': float(results['nll']),
    'guess': constraint.target,
    'lowest': constraint.lowest,
    'ari': float(results['ari']),
    'kl': float(results['kl']),
    'c_ema': float(constraint.c_ema),
    'beta': float(constraint.beta),
    'beta_at_rest': constraint.beta_at_rest,
  }


def _describe(proposal: dict[str, Any]) -> str:
  """Returns the lines that explain a proposal."""
  guess, lowest = proposal['guess'], proposal['lowest']
  lines = [
    f'after {proposal["steps"]:,} steps: foreground ARI {proposal["ari"]:.3f}, nll '
    f'{proposal["nll_total"]:.1f} nats, {proposal["geco_target"]:g} per dimension (no model falls '
    f'below {lowest:g}), KL {proposal["kl"]:.1f} nats',
    f'GECO with the guess {guess:g}: average of target - nll {proposal["c_ema"]:.4g}, beta '
    f'{proposal["beta"]:.4g}; near the end of a training the one should be positive, the other '
    f'back at {proposal["beta_at_rest"]:g}',
  ]
  if guess < lowest:
    lines.append(f'warning: the guess {guess:g} is below {lowest:g}, so it is never reached')
  if proposal['ari'] < LEAST_ARI:
    lines.append(
      f'warning: objects are not found yet (foreground ARI below {LEAST_ARI}); raise '
      f'config.geco_target.share'
    )
  lines.append(f'proposed: --config.model.geco_target={proposal["geco_target"]:g}')
  return '\n'.join(lines)
