"""5,000 real MNIST digits, binarised at each visit: vdvae, efficient_vdvae, nvae; also with ,debug.

    bash launch/local.sh

The set is embedded in a Python package and built on the first start. A small VDVAE for two CPU
cores and a few minutes, and an Efficient-VDVAE of about its size; not comparable with published
numbers, which train on all 60,000 digits.
"""

from configs import systems
from configs.systems import nvae
from configs.systems.efficient_vdvae import lists

DATA = dict(
  data=dict(name='demo_mnist', train_transforms=('binarize',), eval_transforms=('binarize',)),
  model=dict(image_size=32, image_channels=1, likelihood='bernoulli', target_crop=2),
)
_RUN = dict(
  train=dict(
    batch_size=32,
    num_steps=1400,
    precision='default',
    ema_decay=0.995,
    progress_metrics=('neg_elbo', 'kl', 'grad_norm'),
    log_every=50,
    save_every=700,
  ),
  evals=dict(
    names=('elbo', 'bernoulli_baseline'),
    batch_size=50,
    elbo=dict(every=700),
    pictures=dict(every=700, temperatures=(1.0, 0.8, 0.6)),
  ),
  sample=dict(temperatures=(1.0, 0.8, 0.6)),
)
DIFFERENCES = {
  'vdvae': {
    'vdvae': dict(
      model=dict(
        width=16,
        custom_width_str='16:32,8:64,4:64,1:64',  # most of the work where the maps are small
        zdim=8,
        enc_blocks='32d2,16d2,8x2,8d2,4x1,4d4,1x1',
        dec_blocks='1x1,4m1,4x2,8m4,8x2,16m8,32m16',
      ),
      optimizer=dict(learning_rate=1e-3),
      **_RUN,
    )
  },
  'efficient_vdvae': {
    'efficient_vdvae': dict(
      model=dict(
        zdim=8,
        beta_steps=100,
        gamma_max_steps=200,
        **lists(
          {1: 1, 4: 2, 8: 3, 16: 2, 32: 1},
          widths={1: 64, 4: 64, 8: 64, 16: 32, 32: 16},
          # Few channels at 32x32: with 16, gradients of kernels are slow on a CPU.
          ratios={1: 0.5, 4: 0.5, 8: 0.5, 16: 0.25, 32: 0.5},
        ),
      ),
      optimizer=dict(decay_start=700),
      **_RUN,
    )
  },
  'nvae': {
    'nvae': nvae.merged(
      nvae.DEMO,
      dict(
        model=dict(
          num_channels_enc=8, num_channels_dec=8, num_process_blocks=2, kl_anneal_steps=600.0
        )
      ),
      _RUN,
      dict(
        train=dict(ema_decay=None, num_steps=2000, save_every=500),
        evals=dict(elbo=dict(every=500), pictures=dict(every=500, temperatures=(1.0, 0.7, 0.4))),
        sample=dict(temperatures=(1.0, 0.7, 0.4)),
      ),
    )
  },
}


def get_config(argument='vdvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('demo_mnist', argument, DATA, DIFFERENCES)
