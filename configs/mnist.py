"""MNIST, binarised at each visit: efficient_vdvae, nvae; also with ,debug.

    python -m data_prep.build mnist
    python -m hvae_tpu.main --config=configs/mnist.py

efficient_vdvae: 69,919,585 parameters. Published: 79.09 nats on 5,000 of the 10,000 test
digits, binarised once, EMA weights, one-sample ELBO (paper, table 4), after 200k steps on 1 GPU.

nvae: 33,363,134 parameters. Published: 78.01 nats on the 10,000 test digits, binarised at each
visit, importance-weighted (arXiv 2007.03898, table 1), after 400 epochs, 21 hours on 2 V100.
"""

from configs import systems
from configs.systems import nvae
from configs.systems.efficient_vdvae import lists

DATA = dict(
  data=dict(
    name='mnist',
    require=dict(variant='mnist'),
    train_split='efficient_vdvae/train',
    valid_split='efficient_vdvae/valid',
    test_split='efficient_vdvae/test',
    train_transforms=('binarize',),
    eval_transforms=('binarize',),
  ),
  model=dict(image_size=32, image_channels=1, likelihood='bernoulli', target_crop=2),
)
DIFFERENCES = {
  'efficient_vdvae': {
    'efficient_vdvae': dict(
      model=dict(
        beta_steps=500,
        gamma_max_steps=1000,
        **lists(
          {1: 5, 4: 5, 8: 10, 16: 2, 32: 1},
          widths={1: 512, 4: 256, 8: 128, 16: 64, 32: 32},
          ratios=dict.fromkeys((1, 4, 8, 16, 32), 1.0),
        ),
      ),
      optimizer=dict(decay_start=5000, weight_decay=0.01),
      train=dict(
        batch_size=32,
        num_steps=200_000,
        progress_metrics=('neg_elbo', 'kl', 'grad_norm'),
      ),
      evals=dict(batch_size=128, published_bpd=0.14554),  # 79.09 nats over 784 pixels
    )
  },
  'nvae': {
    'nvae': nvae.merged(
      nvae.schedule(60_000, 400, epochs=400, warmup_epochs=5, norm=1e-2),
      dict(
        data={
          **nvae.VIEWS,
          'require': dict(
            split_sha256='fe4e39bbf5e7508e2743343e541d967d3a36c5d8560d34e7e1d41073ece735ba'
          ),
        },
        model=dict(
          num_process_blocks=2,
          num_preprocess_cells=3,
          num_postprocess_cells=3,
          num_latent_scales=2,
          group_divider=2,
          num_cells_enc=2,
          num_cells_dec=2,
        ),
        train=dict(progress_metrics=('neg_elbo', 'kl', 'grad_norm')),
        evals=dict(
          batch_size=200, **nvae.IWAE, published_bpd=0.14355
        ),  # 78.01 nats over 784 pixels
      ),
    )
  },
}


def get_config(argument='efficient_vdvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('mnist', argument, DATA, DIFFERENCES)
