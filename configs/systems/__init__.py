"""Systems that a data set's config chooses from, and the function that builds the config."""

import ml_collections

from configs.systems import cwvae, efficient_morl, efficient_vdvae, nvae, slot_attention, vdvae

SYSTEMS = {
  'vdvae': vdvae,
  'efficient_vdvae': efficient_vdvae,
  'nvae': nvae,
  'cwvae': cwvae,
  'efficient_morl': efficient_morl,
  'slot_attention': slot_attention,
}


def build(
  dataset: str, argument: str, data: dict, differences: dict[str, dict[str, dict]]
) -> ml_collections.ConfigDict:
  """Builds the config of `configs/<dataset>.py:<argument>`.

  Args:
    dataset: name of the config file.
    argument: `system[,variant...]`.
    data: fields that the data set decides for all systems.
    differences: system -> name -> fields that differ from `configs/systems/<system>.py`. The name
      is the system itself, or a variant. `5bit,c1` is a variant of the variant `5bit`: it has the
      differences of both. Every system also has the variant `debug`.

  Raises:
    ValueError: the combination does not exist; the message lists all that do.
  """
  system, *variants = argument.split(',')
  known = differences.get(system, {})
  published = [v for v in variants if v != 'debug']
  names = [system, *(','.join(published[: i + 1]) for i in range(len(published)))]
  if system not in SYSTEMS or not all(name in known for name in names):
    choices = [s if v == s else f'{s},{v}' for s, names in differences.items() for v in names]
    raise ValueError(
      f'configs/{dataset}.py has no {argument!r}; it has {" or ".join(choices)}, each also with '
      f'variant debug'
    )
  config = SYSTEMS[system].base()
  config.lock()  # from here on a misspelt field raises
  config.update(data)
  for name in names:
    config.update(known[name])
  if 'debug' in variants:
    config.update(SYSTEMS[system].debug(config))
  config.name = f'{dataset}-{argument}'
  return config
