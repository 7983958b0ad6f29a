"""The command-line modes by name: modules with `run(config, workdir, checkpoint) -> exit code`."""

from hvae_tpu.modes import (
  decode,
  div_stats,
  encode,
  evaluate,
  explore,
  interpolate,
  pick,
  quality,
  reconstruct,
  replay,
  report,
  reset,
  sample,
  train,
)

MODES = {
  'train': train,
  'eval': evaluate,
  'sample': sample,
  'div_stats': div_stats,
  'reconstruct': reconstruct,
  'encode': encode,
  'decode': decode,
  'explore': explore,
  'interpolate': interpolate,
  'pick': pick,
  'quality': quality,
  'report': report,
  'replay': replay,
  'reset': reset,
}
