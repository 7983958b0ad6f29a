"""The import report: proofs about imported weights, as JSON that is stored with them."""

from collections.abc import Mapping
from typing import Any

from hvae_tpu.storage.tensor_files import Container

# Metrics of test examples, in order of preference -> unit.
MEASURES = {
  'bpd': 'bits/dim',
  'neg_elbo_per_frame': 'nats per frame',
  'neg_elbo': 'nats per example',
  'mse': 'mean squared error',
}


def source(role: str, file: str, container: Container) -> dict[str, Any]:
  """Describes a file of weights; `role` is the field of the train state that it fills."""
  return {'role': role, 'file': file, 'kind': container.kind, 'sha256': container.sha256}


def describe(report: Mapping[str, Any] | None) -> list[str]:
  """Returns lines for the console; none where the weights were trained here."""
  if report is None:
    return []
  files = ', '.join(f'{s["file"]} ({s["kind"]})' for s in report['sources'])
  lines = [
    f'weights imported from {report["format"]}: {files}',
    f'  exported back: {report["tensors"]:,} of {report["tensors"]:,} tensors '
    f'({report["numbers"]:,} numbers) equal the source bit for bit',
  ]
  for path, count in report['aside'].items():
    lines.append(f'  set aside: {path} ({count:,} values), which is not part of the weights')
  measured = report['measured']
  if measured is None:
    return [*lines, '  test examples: not measured (--verify_examples)']
  metric = next(name for name in MEASURES if name in measured)
  published = measured['published']
  return [
    *lines,
    f'  {MEASURES[metric]}: {measured[metric]:.4f} on {measured["examples"]:,} examples of '
    f'{measured["view"]} ({measured["weights"]} weights); published: '
    f'{"none recorded" if published is None else format(published, ".4g")}',
  ]
