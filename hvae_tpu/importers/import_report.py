"""What was proved about imported weights, as JSON that is kept with them."""

from collections.abc import Mapping
from typing import Any

from hvae_tpu.storage.tensor_files import Container

# What is measured on test examples, the first of these that the model reports -> its unit.
MEASURES = {
  'bpd': 'bits/dim',
  'neg_elbo_per_frame': 'nats per frame',
  'neg_elbo': 'nats per example',
  'mse': 'mean squared error',
}


def source(role: str, file: str, held: Container) -> dict[str, Any]:
  """Where weights came from; `role` is the field of the train state."""
  return {'role': role, 'file': file, 'kind': held.kind, 'sha256': held.sha256}


def describe(verdict: Mapping[str, Any] | None) -> list[str]:
  """Lines for the console; none where the weights were trained here."""
  if verdict is None:
    return []
  files = ', '.join(f'{s["file"]} ({s["kind"]})' for s in verdict['sources'])
  lines = [
    f'weights imported from {verdict["format"]}: {files}',
    f'  exported back: {verdict["tensors"]:,} of {verdict["tensors"]:,} tensors '
    f'({verdict["numbers"]:,} numbers) equal the source bit for bit',
  ]
  for path, count in verdict['aside'].items():
    lines.append(f'  set aside: {path} ({count:,} values), which is not part of the weights')
  found = verdict.get('measured', verdict.get('bits_per_dim'))  # its name in older runs
  if found is None:
    lines.append('  test examples: not measured (--verify_examples)')
  else:
    metric = next(name for name in MEASURES if name in found)
    published = 'none recorded' if found['published'] is None else f'{found["published"]:.4g}'
    lines.append(
      f'  {MEASURES[metric]}: {found[metric]:.4f} on {found["examples"]:,} examples of '
      f'{found["view"]} ({found["weights"]} weights); published: {published}'
    )
  return lines
