"""What was proved about imported weights, as JSON that is kept with them."""

from collections.abc import Mapping
from typing import Any

from hvae_tpu.importers.golden import Difference
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


def golden(file: str, differences: Mapping[str, Difference]) -> dict[str, Any]:
  """What the comparison with stored results gave: the worst of every kind of result."""
  worst = {}
  for name, found in differences.items():
    kind = name.split('/')[1]
    if kind not in worst or found.share > worst[kind]['share']:
      worst[kind] = {'name': name, 'error': found.error, 'share': found.share}
  return {'file': file, 'compared': len(differences), 'worst': worst}


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
  lines += _describe_golden(verdict['golden'])
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


def _describe_golden(found: Mapping[str, Any] | None) -> list[str]:
  if found is None:
    return ['  stored results of the reference: not compared (--verify)']
  lines = [f'  {found["compared"]:,} stored results in {found["file"]} are reproduced:']
  for kind, worst in found['worst'].items():
    lines.append(
      f'    {kind:24} largest difference {worst["error"]:.2e}, {worst["share"]:6.1%} of the '
      f'tolerance ({worst["name"]})'
    )
  return lines
