"""5,000 real MNIST digits, binarised at each visit: vdvae; also with ,debug.

    bash launch/local.sh

The set is embedded in a Python package and built on the first start. A small VDVAE for two CPU
cores and a few minutes; not comparable with published numbers, which train on all 60,000 digits.
"""

from configs import systems

DATA = dict(
  data=dict(name='demo_mnist', train_transforms=('binarize',), eval_transforms=('binarize',)),
  model=dict(image_size=32, image_channels=1, likelihood='bernoulli', target_crop=2),
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
      train=dict(
        batch_size=32,
        num_steps=1400,
        precision='default',
        ema_decay=0.995,
        progress=('neg_elbo', 'kl', 'grad_norm'),
        log_every=50,
        save_every=700,
      ),
      evals=dict(
        batch_size=50,
        elbo=dict(every=700),
        pictures=dict(every=700, temperatures=(1.0, 0.8, 0.6)),
      ),
      eval=dict(names=('elbo', 'bernoulli_baseline')),
      sample=dict(temperatures=(1.0, 0.8, 0.6)),
    )
  }
}


def get_config(argument='vdvae'):
  """See above."""
  return systems.build('demo_mnist', argument, DATA, DIFFERENCES)
