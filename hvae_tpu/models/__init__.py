"""Models by the name that configs use."""

import dataclasses
from typing import Any

from hvae_tpu import settings
from hvae_tpu.errors import UserError
from hvae_tpu.models.cwvae import CWVAE
from hvae_tpu.models.efficient_morl import EfficientMORL
from hvae_tpu.models.efficient_morl.slot_attention import SlotAttention
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE
from hvae_tpu.models.nvae import NVAE
from hvae_tpu.models.protocol import Model
from hvae_tpu.models.vdvae import VDVAE

MODELS = {
  'vdvae': VDVAE,
  'efficient_vdvae': EfficientVDVAE,
  'nvae': NVAE,
  'cwvae': CWVAE,
  'efficient_morl': EfficientMORL,
  'slot_attention': SlotAttention,
}

# The values that `auto` stands for in a config, by field and platform. A class may override them by
# an attribute `AUTO`. Depthwise convolutions, and gradients of a loop over convolutions, are slow
# on a CPU. Elsewhere a loop compiles in a fraction of the time and of the memory.
AUTO_ALWAYS = {'depthwise': {'cpu': 'shifts', 'tpu': 'conv', 'gpu': 'conv'}}
AUTO_TRAINING = {
  **AUTO_ALWAYS,
  'unroll': {'cpu': 'full', 'tpu': '1', 'gpu': '1'},
  'remat': {'cpu': 'none', 'tpu': 'blocks', 'gpu': 'blocks'},
}
AUTO_INFERENCE = {
  **AUTO_ALWAYS,
  'unroll': {'cpu': '1', 'tpu': '1', 'gpu': '1'},
  'remat': {'cpu': 'none', 'tpu': 'none', 'gpu': 'none'},
}


def create(section: dict[str, Any], platform: str, differentiated: bool = True) -> Model:
  """Makes the model that `config.model` describes.

  Args:
    section: `name` and the fields of that model's dataclass.
    platform: platform of the devices ('cpu', 'tpu', 'gpu'); it decides `auto` values.
    differentiated: whether gradients will be taken; it decides `auto` values too.

  Raises:
    UserError: an unknown name or field, or a value that the model refuses.
  """
  fields = dict(section)
  name = fields.pop('name', None)
  if name not in MODELS:
    raise UserError(f'config.model.name={name!r} must be one of {", ".join(MODELS)}')
  known = {field.name for field in dataclasses.fields(MODELS[name])}
  if unknown := sorted(set(fields) - known):
    raise UserError(f'config.model has {", ".join(unknown)}, which {name} does not know')
  auto = _auto(name, differentiated)
  for key, value in fields.items():
    if value == 'auto' and key in auto:
      fields[key] = auto[key].get(platform, auto[key]['gpu'])
  return MODELS[name](**fields)


def defaults(name: str) -> dict[str, Any]:
  """Returns a `config.model` in which every field has its default.

  Fields that `create` decides by the platform are 'auto'.
  """
  fields = settings.defaults(MODELS[name])
  automatic = dict.fromkeys(fields.keys() & _auto(name, differentiated=True).keys(), 'auto')
  return {'name': name, **fields, **automatic}


def _auto(name: str, differentiated: bool) -> dict[str, dict[str, str]]:
  """Returns field -> platform -> the value that `auto` stands for, for one system."""
  by_platform = AUTO_TRAINING if differentiated else AUTO_INFERENCE
  return {**by_platform, **getattr(MODELS[name], 'AUTO', {})}


def with_defaults(section: dict[str, Any]) -> dict[str, Any]:
  """Adds to a stored `config.model` the fields that its model has gained since."""
  fields = dataclasses.fields(MODELS[section['name']]) if section.get('name') in MODELS else ()
  stored = lambda value: list(value) if isinstance(value, tuple) else value  # as JSON has it
  return {field.name: stored(field.default) for field in fields} | section


def changeable_fields(name: str) -> set[str]:
  """Returns the fields of `config.model` that may differ when a run is resumed."""
  return settings.changeable(MODELS[name])
