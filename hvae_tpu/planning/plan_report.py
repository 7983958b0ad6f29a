"""A plan in words and as JSON."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

from hvae_tpu.planning import chips
from hvae_tpu.planning.analysis import Analysis
from hvae_tpu.planning.estimate import Estimate, estimate

GIB = 2**30
DAY = 86_400.0


class Plan(NamedTuple):
  """One config on one slice.

  Attributes:
    name: of the config.
    settings: what it was compiled with: batch, precision, remat, dtype, mesh.
    num_steps: of training; 0 where only the data set knows.
    analyses: 'train' and 'eval', those that were asked for.
  """

  name: str
  topology: str
  settings: Mapping[str, Any]
  num_steps: int
  analyses: Mapping[str, Analysis]
  efficiency: float

  @property
  def chip(self) -> chips.Chip:
    return chips.chip_of(self.topology)

  @property
  def fits(self) -> bool:
    return all(found.fits(self.chip.hbm) for found in self.analyses.values())

  def estimate(self, program: str) -> Estimate:
    # Most operands are bfloat16 then, which takes one pass; those of float32 count too little.
    bfloat16 = self.settings.get('dtype') == 'bfloat16'
    precision = 'default' if bfloat16 else self.settings['precision']
    return estimate(self.analyses[program], self.chip, precision, self.efficiency)

  def days(self) -> tuple[float, float]:
    """Of all training steps: at the roofline, and at the expected share of the peak."""
    found = self.estimate('train')
    return tuple(self.num_steps * seconds / DAY for seconds in (found.roofline, found.planned))

  def json(self) -> dict[str, Any]:
    """Everything; bytes, seconds, FLOPs."""
    programs = {
      name: {
        **dataclasses.asdict(found),
        'work': found.work._asdict(),
        'estimate': self.estimate(name)._asdict(),
      }
      for name, found in self.analyses.items()
    }
    return {
      'config': self.name,
      'topology': self.topology,
      'chip': self.chip._asdict(),
      'settings': dict(self.settings),
      'num_steps': self.num_steps,
      'efficiency': self.efficiency,
      'fits': self.fits,
      'days_roofline_planned': self.days() if 'train' in self.analyses else None,
      'programs': programs,
    }

  def text(self) -> str:
    """Lines for a terminal."""
    first = next(iter(self.analyses.values()))
    said = ', '.join(f'{key} {value}' for key, value in self.settings.items())
    lines = [
      f'{self.name} on {self.topology}: {first.devices} devices of {self.chip.hbm / GIB:.2f} GiB',
      f'  {said}',
      f'  {first.parameters:,} parameters',
    ]
    for name in self.analyses:
      lines += [f'  {name}', *(f'    {line}' for line in self._program(name))]
    if 'train' in self.analyses and self.analyses['train'].fits(self.chip.hbm):
      lines += [f'  {line}' for line in self._time()]
    return '\n'.join(lines)

  def _program(self, name: str) -> list[str]:
    found, compiled = self.analyses[name], self.analyses[name].compiled
    size = f'batch {found.batch_size} = {found.batch_size / found.devices:g} per device'
    flops = f'{found.work.flops:.3g} FLOPs a step, {found.work.flops / found.batch_size:.3g} each'
    if not compiled.fits:
      return [
        f'{size}; DOES NOT FIT: needs {compiled.peak / GIB:.2f} GiB for temporaries alone',
        flops,
      ]
    verdict = 'fits' if found.fits(self.chip.hbm) else 'DOES NOT FIT'
    verdict += f': peak {compiled.peak / GIB:.2f} GiB a device'
    if found.beside:
      verdict += f', and {found.beside / GIB:.2f} of the train state beside it'
    at_a_time = (compiled.peak - compiled.arguments) / GIB
    asked = self.settings['precision']
    total = sum(compiled.precisions.values())
    return [
      f'{size}; {verdict}',
      f'state {found.state_bytes / GIB:.2f}, arguments {compiled.arguments / GIB:.2f}, '
      f'temporaries {compiled.temporaries / GIB:.2f} ({at_a_time:.2f} at a time), '
      f'code {compiled.code / GIB:.2f} GiB',
      f'{flops}; {self.estimate(name).intensity:.0f} FLOPs per byte',
      f'{compiled.precisions.get(asked, 0)} of {total} convolutions and products at {asked}',
      *(
        f'{kind}: {count} times, {size / 2**20:.1f} MiB; {wire / 2**20:.1f} MiB sent by a device'
        for kind, (count, size, wire) in sorted(compiled.collectives.items())
      ),
      f'compiled in {compiled.seconds:.0f} s with {compiled.host_peak / GIB:.1f} GiB on the host',
    ]

  def _time(self) -> list[str]:
    found, (least, planned) = self.estimate('train'), self.days()
    lines = [
      'estimates, nothing was run; chip: '
      f'{self.chip.flops / 1e12:.0f} TFLOP/s, memory {self.chip.hbm_bandwidth / 1e9:.0f} GB/s, '
      f'links {self.chip.ici_bandwidth / 1e9:.0f} GB/s',
      f'  step: at least {1e3 * found.roofline:.3g} ms (compute {1e3 * found.compute:.3g}, memory '
      f'{1e3 * found.memory:.3g}, links {1e3 * found.links:.3g}); '
      f'{1e3 * found.planned:.3g} ms at {self.efficiency:.0%} of the peak; '
      f'{1e3 * found.cycles:.3g} ms by the cycles that the compiler expects',
    ]
    if self.num_steps:
      return [
        *lines,
        f'  {self.num_steps:,} steps: {least:.2g} days at least, {planned:.2g} planned',
      ]
    return [
      *lines,
      '  number of steps unknown: config.train.num_epochs counts a set that is missing',
    ]
