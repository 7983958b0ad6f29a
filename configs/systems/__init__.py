"""The systems that a data set's config chooses from, and how the choice is put together."""

import ml_collections

from configs.systems import efficient_vdvae, vdvae

SYSTEMS = {'vdvae': vdvae, 'efficient_vdvae': efficient_vdvae}


def build(
  dataset: str, argument: str, data: dict, differences: dict[str, dict[str, dict]]
) -> ml_collections.ConfigDict:
  """The config of `configs/<dataset>.py:<argument>`.

  Args:
    dataset: name of the config file.
    argument: `system[,variant...]`.
    data: what the data set needs, whatever the system.
    differences: system -> name -> fields that differ from `configs/systems/<system>.py`; the name
      is the system itself, or a variant. Every system also has the variant `debug`.

  Raises:
    ValueError: a combination that is not there; the message lists those that are.
  """
  system, *variants = argument.split(',')
  known = differences.get(system, {})
  if system not in SYSTEMS or not all(v == 'debug' or v in known for v in variants):
    choices = [s if v == s else f'{s},{v}' for s, names in differences.items() for v in names]
    raise ValueError(
      f'configs/{dataset}.py has no {argument!r}; it has {" or ".join(choices)}, each also with '
      f'variant debug'
    )
  config = SYSTEMS[system].base()
  config.lock()  # from here on a misspelt field raises
  config.update(data)
  for name in (system, *variants):
    config.update(SYSTEMS[system].debug(config) if name == 'debug' else known[name])
  config.name = f'{dataset}-{argument}'
  return config
