"""Work directories of runs: the stored config, and the check before a run is resumed.

* `config.json`: config of the latest start
* `checkpoints/`: see checkpoints.py
* `<mode>/`: files of a mode, such as logs of `train`, results of `eval`, pictures of `sample` and
  latent variables of `encode`
* `nonfinite-<step>/`: see training/nonfinite_dump.py
* `damaged-checkpoint-<step>-<n>/`: set aside by a resume
"""

from collections.abc import Iterable
import json
from pathlib import Path
from typing import Any

import ml_collections

from hvae_tpu.devices.distributed import print_once
from hvae_tpu.errors import UserError
from hvae_tpu.storage import files

CONFIG = 'config.json'


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the config with the types of JSON: plain dicts, lists for tuples."""
  return json.loads(config.to_json_best_effort())


def from_json(config: dict[str, Any]) -> ml_collections.ConfigDict:
  """Reverses `to_json`."""
  return ml_collections.ConfigDict(_with_tuples(config))


def _with_tuples(value: Any) -> Any:
  """Replaces lists by tuples."""
  if isinstance(value, dict):
    return {key: _with_tuples(v) for key, v in value.items()}
  return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def store_config(workdir: Path, config: ml_collections.ConfigDict) -> None:
  """Writes config.json, whole or not at all; UserError if it cannot be written."""
  files.save_json(workdir / CONFIG, to_json(config), strict=False)


def stored_config(workdir: Path) -> dict[str, Any] | None:
  """Reads config.json; None if there is none, UserError if it is damaged."""
  path = workdir / CONFIG
  return files.read_json(path, 'restore or delete it') if path.exists() else None


def flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """Flattens nested dicts: {'a': {'b': 1}} becomes {'a.b': 1}."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[prefix + key] = value
  return flat


def is_binding(key: str, changeable: Iterable[str]) -> bool:
  """Returns whether a run cannot be resumed with another value of a config key.

  Args:
    key: dotted path.
    changeable: fields of the model that may change: loss weights, and how a program is executed.
  """
  section, _, rest = key.partition('.')
  if section == 'model':
    return rest not in changeable
  if section == 'data':
    return rest not in ('root', 'num_workers')
  return key in ('seed', 'optimizer.name')


def compare_configs(
  workdir: Path,
  stored: dict[str, Any],
  config: ml_collections.ConfigDict,
  changeable: Iterable[str],
) -> None:
  """Compares a config with the stored one of a run, and prints the fields that change.

  Args:
    workdir: work directory of the run.
    stored: its config.
    config: config of the command.
    changeable: see `is_binding`.

  Raises:
    UserError: they differ in a binding key, and `train.allow_config_change` is not set.
  """
  old, new = flatten(stored), flatten(to_json(config))
  keys = [k for k in sorted(old | new) if old.get(k) != new.get(k)]
  keys = [k for k in keys if k not in ('name', 'train.allow_config_change')]
  described = {k: f'config.{k}: {old.get(k)} -> {new.get(k)}' for k in keys}
  binding = [k for k in keys if is_binding(k, changeable)]
  if binding and not config.train.allow_config_change:
    raise UserError(
      f'{workdir} holds a run with another config: {"; ".join(described[k] for k in binding)}. '
      f'Use another --workdir, or the old values, or --config.train.allow_config_change=true'
    )
  for text in described.values():
    print_once(f'changed since the last start: {text}')
