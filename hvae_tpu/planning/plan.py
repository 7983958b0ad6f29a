"""Plan of a config on a TPU slice, as text and as JSON."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

from hvae_tpu.planning import chips
from hvae_tpu.planning.analysis import Analysis
from hvae_tpu.planning.estimate import Estimate, estimate

GIB = 2**30
DAY = 86_400.0


class Plan(NamedTuple):
  """Memory, work and estimated time of one config on one slice.

  Attributes:
    name: name of the config.
    topology: name of the slice, such as `v5e:2x2`.
    settings: settings that decide memory and time: precision, dtype, remat, unroll, mesh.
    num_steps: training steps; 0 if only the data set, which is missing, tells their number.
    analyses: 'train', 'eval' or both -> analysis of that program.
    efficiency: expected fraction of the peak of the matrix units.
  """

  name: str
  topology: str
  settings: Mapping[str, Any]
  num_steps: int
  analyses: Mapping[str, Analysis]
  efficiency: float

  @property
  def chip(self) -> chips.Chip:
    """Figures of one device."""
    return chips.chip_of(self.topology)

  @property
  def fits(self) -> bool:
    """Whether all programs fit into the memory of a device."""
    return all(analysis.fits(self.chip.hbm) for analysis in self.analyses.values())

  def estimate(self, program: str) -> Estimate:
    """Estimates the time of one run of a program."""
    # With bfloat16 most operands take one pass; the few float32 ones are underestimated.
    bfloat16 = self.settings.get('dtype') == 'bfloat16'
    precision = 'default' if bfloat16 else self.settings['precision']
    return estimate(self.analyses[program], self.chip, precision, self.efficiency)

  def days(self) -> tuple[float, float]:
    """Returns the days of all training steps: at the roofline, and at the expected efficiency."""
    step = self.estimate('train')
    return tuple(self.num_steps * seconds / DAY for seconds in (step.roofline, step.planned))

  def json(self) -> dict[str, Any]:
    """Returns the plan as JSON values, in bytes, seconds and FLOPs."""
    programs = {
      name: {
        **dataclasses.asdict(analysis),
        'work': analysis.work._asdict(),
        'estimate': self.estimate(name)._asdict(),
      }
      for name, analysis in self.analyses.items()
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
    """Returns the plan as lines for a terminal."""
    first = next(iter(self.analyses.values()))
    settings = ', '.join(f'{key} {value}' for key, value in self.settings.items())
    lines = [
      f'{self.name} on {self.topology}: {first.devices} devices of {self.chip.hbm / GIB:.2f} GiB',
      f'  {settings}',
      f'  {first.parameters:,} parameters',
    ]
    for name in self.analyses:
      lines += [f'  {name}', *(f'    {line}' for line in self._program(name))]
    if 'train' in self.analyses and self.analyses['train'].fits(self.chip.hbm):
      lines += [f'  {line}' for line in self._time()]
    return '\n'.join(lines)

  def _program(self, name: str) -> list[str]:
    """Returns the lines about one program."""
    analysis, compiled = self.analyses[name], self.analyses[name].compiled
    batch_size, flops = analysis.batch_size, analysis.work.flops
    size = f'batch {batch_size} = {batch_size / analysis.devices:g} per device'
    flops = f'{flops:.3g} FLOPs a step, {flops / batch_size:.3g} each'
    if not compiled.fits:
      return [
        f'{size}; DOES NOT FIT: needs {compiled.peak / GIB:.2f} GiB for temporaries alone',
        flops,
      ]
    memory = 'fits' if analysis.fits(self.chip.hbm) else 'DOES NOT FIT'
    memory += f': peak {compiled.peak / GIB:.2f} GiB a device'
    if analysis.beside:
      memory += f', and {analysis.beside / GIB:.2f} of the train state beside it'
    at_a_time = (compiled.peak - compiled.arguments) / GIB
    precision = self.settings['precision']
    total = sum(compiled.precisions.values())
    return [
      f'{size}; {memory}',
      f'state {analysis.state_bytes / GIB:.2f}, arguments {compiled.arguments / GIB:.2f}, '
      f'temporaries {compiled.temporaries / GIB:.2f} ({at_a_time:.2f} at a time), '
      f'code {compiled.code / GIB:.2f} GiB',
      f'{flops}; {self.estimate(name).intensity:.0f} FLOPs per byte',
      f'{compiled.precisions.get(precision, 0)} of {total} convolutions and products at '
      f'{precision}',
      *(
        f'{kind}: {count} times, {size / 2**20:.1f} MiB; {wire / 2**20:.1f} MiB sent by a device'
        for kind, (count, size, wire) in sorted(compiled.collectives.items())
      ),
      f'compiled in {compiled.seconds:.0f} s with {compiled.host_peak / GIB:.1f} GiB on the host',
    ]

  def _time(self) -> list[str]:
    """Returns the lines about the time of a training."""
    step, (least, planned) = self.estimate('train'), self.days()
    lines = [
      'estimates, nothing was run; chip: '
      f'{self.chip.flops / 1e12:.0f} TFLOP/s, memory {self.chip.hbm_bandwidth / 1e9:.0f} GB/s, '
      f'links {self.chip.ici_bandwidth / 1e9:.0f} GB/s',
      f'  step: at least {1e3 * step.roofline:.3g} ms (compute {1e3 * step.compute:.3g}, memory '
      f'{1e3 * step.memory:.3g}, links {1e3 * step.links:.3g}); '
      f'{1e3 * step.planned:.3g} ms at {self.efficiency:.0%} of the peak; '
      f'{1e3 * step.cycles:.3g} ms by the cycles that the compiler expects',
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
