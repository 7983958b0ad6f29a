"""The command-line modes by name.

A mode is a module with

* `run(config, workdir, checkpoint) -> exit code`,
* `FOLDERS`, patterns of the folders that it writes in a work directory,
* `NEEDS`, if it loads a run: the attributes and methods of a model that it asks for,
* `Options`, if it has any: a frozen dataclass, which the section `config.<mode>` is made of,
* `REPORTED = True`, if the page of `--mode=report` shows its pictures, in the order of `MODES`,
* `IN_BUCKETS = True`, if its work directory may lie in a bucket,
* a first line '`--mode=<name>`: ...', which `--help` shows.
"""

from hvae_tpu.modes import (
  decode,
  disentangle,
  div_stats,
  encode,
  evaluate,
  explore,
  geco_target,
  interpolate,
  open_loop,
  pick,
  plan,
  quality,
  reconstruct,
  replay,
  report,
  reset,
  sample,
  segment,
  show_config,
  train,
  traverse,
)

MODES = {
  'train': train,
  'eval': evaluate,
  'sample': sample,
  'open_loop': open_loop,
  'segment': segment,
  'disentangle': disentangle,
  'traverse': traverse,
  'div_stats': div_stats,
  'reconstruct': reconstruct,
  'explore': explore,
  'interpolate': interpolate,
  'pick': pick,
  'encode': encode,
  'decode': decode,
  'quality': quality,
  'report': report,
  'geco_target': geco_target,
  'plan': plan,
  'config': show_config,
  'replay': replay,
  'reset': reset,
}
