"""The summary of a run at its start: printed, in TensorBoard, and as a table of parameters."""

from pathlib import Path
from typing import Any

from clu import parameter_overview
import jax
from jax.sharding import Mesh
import ml_collections

from hvae_tpu import data
from hvae_tpu.devices.distributed import print_once
from hvae_tpu.runs.metric_writer import Writer
from hvae_tpu.runs.workdir import flatten, to_json
from hvae_tpu.training import setup
from hvae_tpu.training.state import TrainState


def show(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  dataset: data.Dataset,
  workdir: Path,
  start: int,
) -> None:
  """Prints devices, batch size, data set and steps of a run."""
  device = mesh.devices.flat[0].device_kind
  axes = ' x '.join(f'{name}={size}' for name, size in mesh.shape.items())
  size = config.train.batch_size
  print_once(f'{config.name} in {workdir}')
  print_once(f'{mesh.size} devices ({device}), mesh {axes}; precision {config.train.precision}')
  print_once(f'batch {size} = {size / mesh.size:g} per device, in {jax.process_count()} processes')
  views = ', '.join(
    f'{role} {setup.num_examples(dataset, config, view, seq_len):,} ({view})'
    for role, seq_len in (('train', config.data.seq_len), ('valid', 0), ('test', 0))
    if (view := config.data[f'{role}_split'])
  )
  print_once(f'data set {dataset.card["name"]}: {views}')
  for line in _card_lines(dataset.card):
    print_once(f'  {line}')
  print_once(f'from step {start:,} to {config.train.num_steps:,}')


def _card_lines(card: dict[str, Any]) -> list[str]:
  """Returns lines about the records and their origin, from the data card."""
  fields = ', '.join(f'{k} {v["dtype"]} {v["shape"]}' for k, v in card['fields'].items())
  variant = f', variant {card["variant"]}' if card.get('variant') else ''
  limit = f', first {card["limit"]} of each split' if card.get('limit') else ''
  return [
    f'{fields}; version {card["version"]}{variant}{limit}; build {card["build_id"][:12]}',
    f'source: {card["source"]}',
    f'licence: {card["licence"]}',
  ]


def record(
  state: TrainState,
  config: ml_collections.ConfigDict,
  writer: Writer,
  workdir: Path,
  start: int,
) -> None:
  """Writes the config, and at the first start the table of parameters."""
  writer.hparams(flatten(to_json(config)))
  count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  print(f'{count:,} parameters')
  table = workdir / 'train' / 'parameters.txt'
  if not table.exists():
    # Placement and statistics are left out: they would move every array to the host.
    text = parameter_overview.get_parameter_overview(state.params, include_stats=False)
    table.write_text(text + '\n')
    writer.text(start, 'parameters', f'```\n{text}\n```')
