"""FFHQ 256x256: vdvae (5-bit targets), efficient_vdvae[,5bit[,c1]][,compact], nvae (5 bits).

Each also with ,debug.

    python -m data_prep.build ffhq256
    python -m hvae_tpu.main --config=configs/ffhq256.py

vdvae: 114,874,852 parameters. Published: 0.61 bits/dim (0.4232 nats/dim), with 5-bit targets and
the release's 5-bit likelihood, whose bins overlap a little, on the validation set, which is also
the test set; EMA weights (openai/vdvae README), after 1.7M steps, 2.5 weeks on 32 V100.

efficient_vdvae: 208,873,444 parameters. Published: 2.17 bits/dim on 7,000 images that are
also the validation set, EMA weights, one-sample ELBO (arXiv 2203.13751, table 4), after 900k steps
on 8 GPUs. 5bit: 197,677,156 parameters; 0.53 bits/dim. 5bit,c1: 67,032,644 parameters,
compact: 71,233,284 parameters; the released code gives no numbers for them. The split of the paper
was drawn without a seed.

nvae: 330,798,664 parameters. Published: 0.69 bits/dim with 5 bits on 7,000 images,
importance-weighted (arXiv 2007.03898, table 1), after 200 epochs, 160 hours on 24 V100.
"""

from configs import systems
from configs.systems import efficient_vdvae, nvae, vdvae
from configs.systems import efficient_vdvae_faces as faces

DATA = dict(
  data=dict(
    name='ffhq256',
    require=dict(
      variant='ffhq',
      split_sha256='89b3c0a62ccc7a8af939365b7bfac032c0f06e1306e7543460c3ae23671cbe0d',
    ),
    **vdvae.VIEWS,
  ),
  model=dict(image_size=256),
)
DIFFERENCES = {
  'vdvae': {
    'vdvae': dict(
      model=dict(
        width=512,
        input_mean=112.8666757481,
        input_std=69.84780273,
        num_bits=5,
        enc_blocks='256x3,256d2,128x8,128d2,64x12,64d2,32x17,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4',
        dec_blocks='1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x21,64m32,64x13,128m64,128x7,256m128',
      ),
      optimizer=dict(learning_rate=1.5e-4, clip_norm=130.0),
      train=dict(
        batch_size=32,  # the release: 1 per GPU on 32
        num_steps=1_700_000,
        ema_decay=0.999,
        skip_threshold=180.0,
      ),
      evals=dict(pictures=dict(num=2, temperatures=(1.0,), num_partial=3), published_bpd=0.61),
      sample=dict(num=2),
    )
  },
  'efficient_vdvae': {
    'efficient_vdvae': dict(
      data=dict(require=dict(split_sha256=''), **efficient_vdvae.VIEWS),
      model=faces.BASELINE_8BIT,
      train=dict(batch_size=8, num_steps=900_000, skip_threshold=500.0),
      evals=dict(batch_size=32, **faces.PICTURES_256, published_bpd=2.17),
      sample=dict(num=2),
    ),
    'compact': dict(model=faces.COMPACT_8BIT, evals=dict(published_bpd=None)),
    '5bit': dict(
      model=faces.BASELINE_5BIT,
      optimizer=dict(clip_norm=20.0, decay_steps=750_000),  # 100k steps before the end
      train=dict(batch_size=16, skip_threshold=1000.0),
      evals=dict(batch_size=64, published_bpd=0.53),
    ),
    '5bit,c1': dict(model=faces.C1_5BIT, evals=dict(published_bpd=None)),
  },
  'nvae': {
    'nvae': nvae.merged(
      nvae.schedule(
        63_000, 96, epochs=200, warmup_epochs=5, norm=1e-1, norm_init=1.0, learning_rate=8e-3
      ),
      dict(
        data=dict(**nvae.VIEWS, train_transforms=('flip',)),
        model=nvae.FACES_256,
        evals=dict(batch_size=24, **faces.PICTURES_256, **nvae.IWAE, published_bpd=0.69),
        sample=dict(num=2),
      ),
    )
  },
}


def get_config(argument='vdvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('ffhq256', argument, DATA, DIFFERENCES)
