"""CIFAR-10: vdvae[,paper], efficient_vdvae[,c1], nvae; each also with ,debug.

    python -m data_prep.build cifar10
    python -m hvae_tpu.main --config=configs/cifar10.py

vdvae: 39,145,700 parameters. Published: 2.87 bits/dim on the test set, mean of four seeds, EMA
weights, one-sample ELBO (openai/vdvae README; j-towns/vdvae-jax reached the same on a TPU with
conv_precision=highest). About 1M steps; the release took a little under a week on 2 V100.

efficient_vdvae: 56,598,692 parameters. Published: 2.87 bits/dim on 5,000 of the 10,000
test images, EMA weights, one-sample ELBO (arXiv 2203.13751, table 4), after 800k steps on 2 GPUs.
c1: 18,124,020 parameters; the released code gives no number for it.

nvae: 130,852,480 parameters. Published: 2.91 bits/dim on the test set, importance-weighted
(arXiv 2007.03898, table 1), after 400 epochs, 55 hours on 8 V100.
"""

from configs import systems
from configs.systems import efficient_vdvae, nvae, vdvae
from configs.systems.efficient_vdvae import lists

DATA = dict(
  data=dict(
    name='cifar10',
    require=dict(
      variant='cifar-10',
      split_sha256='41bfb7d6515495aa7dccb33e7508d8ef7b23d9d8c44d3073385d8198657c5a66',
    ),
    **vdvae.VIEWS,
  ),
  model=dict(image_size=32),
)
_SIDES = (1, 4, 8, 16, 32)
_NETWORK = dict(
  levels=dict(zip(_SIDES, (3, 4, 7, 7, 12), strict=True)), down={16: (0, 4), 32: (0, 10)}
)
DIFFERENCES = {
  'vdvae': {
    'vdvae': dict(
      model=dict(
        input_mean=120.63838,
        input_std=64.16736,
        enc_blocks='32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3',
        dec_blocks='1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21',
      ),
      evals=dict(published_bpd=2.87),
      train=dict(
        batch_size=32,  # the release: 16 per GPU on 2
        num_steps=1_100_000,  # the release stopped its seeds between 650k and 1.05M
        precision='highest',  # the release is float32; on a TPU less costs about 1% of the ELBO
        # The release has 400. Once typical gradients exceed the threshold, every further update is
        # skipped; users of the release reported it. vdvae-jax needed 1000 for the published value.
        skip_threshold=1000.0,
      ),
    ),
    'paper': dict(train=dict(skip_threshold=400.0)),
  },
  'efficient_vdvae': {
    'efficient_vdvae': dict(
      data=dict(require=dict(split_sha256=''), **efficient_vdvae.VIEWS),
      model=lists(
        widths=dict.fromkeys(_SIDES, 384), ratios=dict.fromkeys(_SIDES, 0.25), **_NETWORK
      ),
      optimizer=dict(min_learning_rate=2e-4, weight_decay=0.01),
      train=dict(batch_size=32),
      evals=dict(batch_size=64, published_bpd=2.87),
    ),
    'c1': dict(
      model=dict(
        zdim=16,
        **lists(
          widths={1: 384, 4: 384, 8: 192, 16: 96, 32: 48},
          ratios={1: 0.25, 4: 0.25, 8: 0.25, 16: 0.5, 32: 1.0},
          **_NETWORK,
        ),
      ),
      evals=dict(published_bpd=None),
    ),
  },
  'nvae': {
    'nvae': nvae.merged(
      nvae.schedule(50_000, 256, epochs=400, warmup_epochs=5, norm=1e-2),
      dict(
        data={
          **nvae.VIEWS,
          'require': dict(
            split_sha256='33236cc6bd19fa6b89e06d441d3fcd8eb37dc8540f6a4f2b627b20af10894a41'
          ),
          'train_transforms': ('flip',),
        },
        model=dict(
          num_channels_enc=128,
          num_channels_dec=128,
          num_groups_per_scale=30,
          num_cells_enc=2,
          num_cells_dec=2,
          num_flows=1,
        ),
        evals=dict(batch_size=256, **nvae.IWAE, published_bpd=2.91),
      ),
    )
  },
}


def get_config(argument='vdvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('cifar10', argument, DATA, DIFFERENCES)
