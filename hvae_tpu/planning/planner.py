"""Makes the plan of a config: compiles its programs for a slice."""

import copy
from typing import Any

import ml_collections

from hvae_tpu import data, models
from hvae_tpu.errors import UserError
from hvae_tpu.planning import chips
from hvae_tpu.planning.analysis import Analysis, analyse
from hvae_tpu.planning.plan import Plan
from hvae_tpu.planning.programs import PROGRAMS, check
from hvae_tpu.training import epochs


def make_plan(config: ml_collections.ConfigDict, topology: str, programs: tuple[str, ...]) -> Plan:
  """Compiles the named programs of a config for a slice.

  Raises:
    UserError: no TPU compiler, an unknown slice, or a batch that does not divide.
  """
  check(config, chips.describe(topology))
  return Plan(
    name=config.name,
    topology=topology,
    num_steps=_num_steps(config),
    analyses={name: analyse_program(name, config, topology) for name in programs},
    settings=_settings(config),
    efficiency=config.plan.efficiency,
  )


def analyse_program(name: str, config: ml_collections.ConfigDict, topology: str) -> Analysis:
  """Compiles and analyses one of `PROGRAMS` for a slice; raises as `make_plan` does."""
  traced = PROGRAMS[name](config, chips.describe(topology))
  return analyse(traced, topology, config.plan.effort)


def _settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the settings that decide memory and time, with `auto` values resolved."""
  model = models.create(config.model.to_dict(), 'tpu')
  names = ('dtype', 'remat', 'unroll')
  fields = {name: getattr(model, name) for name in names if hasattr(model, name)}
  return {'precision': config.train.precision, **fields, **config.mesh.to_dict()}


def _num_steps(config: ml_collections.ConfigDict) -> int:
  """Returns the number of training steps; 0 if it is in epochs of a data set that is missing."""
  if config.train.num_epochs is None:
    return config.train.num_steps
  try:
    dataset = data.open_dataset(config.data.name, config.data.root)
  except UserError:
    return 0
  counted = copy.deepcopy(config)
  size = data.num_examples(dataset, config.data.train_split, config.data.seq_len)
  epochs.resolve(counted, size)
  return counted.train.num_steps
