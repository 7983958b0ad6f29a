"""CelebA-HQ 1024x1024: efficient_vdvae; also with ,debug.

    python -m data_prep.build celebahq1024
    python -m hvae_tpu.main --config=configs/celebahq1024.py

efficient_vdvae: 75,869,284 parameters. Published: 1.01 bits/dim on images that are also
the validation set, EMA weights, one-sample ELBO (paper, table 4), after 900k steps on 8 GPUs. The
split of the paper was drawn without a seed. Its authors find samples poor at this size.
"""

from configs import systems
from configs.systems import efficient_vdvae_faces as faces
from configs.systems.efficient_vdvae import VIEWS

DATA = dict(
  data=dict(
    name='celebahq1024',
    require=dict(variant='png'),
    **VIEWS,
  ),
  model=dict(image_size=1024),
)
DIFFERENCES = {
  'efficient_vdvae': {
    'efficient_vdvae': dict(**faces.LARGE, evals=dict(**faces.LARGE_EVALS, published_bpd=1.01)),
  }
}


def get_config(argument='efficient_vdvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('celebahq1024', argument, DATA, DIFFERENCES)
