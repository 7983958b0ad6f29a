"""CelebA-HQ 256x256: efficient_vdvae[,5bit][,compact], nvae; each also with ,debug.

    python -m data_prep.build celebahq256
    python -m hvae_tpu.main --config=configs/celebahq256.py

efficient_vdvae: 208,873,444 parameters. Published: 1.35 bits/dim on 3,000 images that are
also the validation set, EMA weights, one-sample ELBO (paper, table 4), after 800k steps on 8 GPUs.
5bit: 197,677,156 parameters; 0.51 bits/dim after 500k steps. compact: 71,233,284 parameters;
the released code gives no number for it. The split of the paper was drawn without a seed.

nvae: 330,798,664 parameters. Published: 0.70 bits/dim with 5 bits on 3,000 images,
importance-weighted (arXiv 2007.03898, table 1), after 300 epochs, 94 hours on 24 V100. Its split is
that of GLOW's TFRecords, which the set must be built from: --raw=celeba-tfr.tar.
"""

from configs import systems
from configs.systems import efficient_vdvae_faces as faces
from configs.systems import nvae
from configs.systems.efficient_vdvae import VIEWS

DATA = dict(
  data=dict(
    name='celebahq256',
    require=dict(variant='png'),
    **VIEWS,
  ),
  model=dict(image_size=256),
)
DIFFERENCES = {
  'efficient_vdvae': {
    'efficient_vdvae': dict(
      model=faces.BASELINE_8BIT,
      optimizer=dict(clip_norm=300.0),
      train=dict(batch_size=8),
      evals=dict(batch_size=32, **faces.PICTURES_256, published_bpd=1.35),
      sample=dict(num=2),
    ),
    'compact': dict(model=faces.COMPACT_8BIT, evals=dict(published_bpd=None)),
    '5bit': dict(
      model=faces.BASELINE_5BIT,
      optimizer=dict(clip_norm=15.0, decay_steps=400_000),  # 50k steps before the end
      train=dict(batch_size=16, num_steps=500_000, skip_threshold=1000.0),
      evals=dict(batch_size=64, published_bpd=0.51),
    ),
  },
  'nvae': {
    'nvae': nvae.merged(
      nvae.schedule(27_000, 96, epochs=300, warmup_epochs=5, norm=1e-2, norm_init=1.0),
      dict(
        data={
          **nvae.VIEWS,
          'require': dict(
            variant='glow',
            split_sha256='c1c173b491c24b17f70bd5909f0a20aab23c0278dd32a085e0ca9d765fd2c8ca',
          ),
        },
        model=nvae.FACES_256,
        evals=dict(batch_size=24, **faces.PICTURES_256, **nvae.IWAE, published_bpd=0.7),
        sample=dict(num=2),
      ),
    )
  },
}


def get_config(argument='efficient_vdvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('celebahq256', argument, DATA, DIFFERENCES)
