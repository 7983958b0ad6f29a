"""The models, by the name that configs use."""

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

# What `auto` stands for. A loop over convolutions is slow to differentiate on a CPU, and everything
# else wants the loop: it compiles in a fraction of the time, and keeps a fraction of the memory.
# Depthwise convolutions are slow on a CPU in both directions. A system for which something else is
# right says so in the attribute `AUTO` of its class.
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
  """The model that `config.model` describes.

  Args:
    section: `name` and the fields of that model's dataclass.
    platform: of the devices that will run it ('cpu', 'tpu', 'gpu'); it decides `auto` values.
    differentiated: whether gradients will be taken; it decides them too.

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
  auto = AUTO_TRAINING if differentiated else AUTO_INFERENCE
  auto = {**auto, **getattr(MODELS[name], 'AUTO', {})}
  for key, value in fields.items():
    if value == 'auto' and key in auto:
      fields[key] = auto[key].get(platform, auto[key]['gpu'])
  return MODELS[name](**fields)


def with_defaults(section: dict[str, Any]) -> dict[str, Any]:
  """A stored `config.model`, completed by the fields that its model has gained since."""
  fields = dataclasses.fields(MODELS[section['name']]) if section.get('name') in MODELS else ()
  stored = lambda value: list(value) if isinstance(value, tuple) else value  # as JSON has it
  return {field.name: stored(field.default) for field in fields} | section


def changeable_fields(name: str) -> set[str]:
  """Fields of `config.model` that may differ when a run is resumed."""
  return settings.changeable(MODELS[name])
