"""FFHQ 1024x1024: vdvae, efficient_vdvae; each also with ,debug.

    python -m data_prep.build ffhq1024
    python -m hvae_tpu.main --config=configs/ffhq1024.py

vdvae: 109,366,904 parameters, counted from the released strings (its README says 115M). Published:
2.42 bits/dim (1.678 nats/dim) on images 65000-69999; EMA weights (openai/vdvae README), after 1.7M
steps, 2.5 weeks on 32 V100.

efficient_vdvae: 75,869,284 parameters. Published: 2.30 bits/dim on images that are also
the validation set, EMA weights, one-sample ELBO (arXiv 2203.13751, table 4), after 900k steps on 8
GPUs. The split of the paper was drawn without a seed. Its authors find samples poor at this size.
"""

from configs import systems
from configs.systems import efficient_vdvae, vdvae
from configs.systems import efficient_vdvae_faces as faces

DATA = dict(
  data=dict(
    name='ffhq1024',
    require=dict(
      variant='ffhq',
      split_sha256='e769b377a15382d24413caaa9dab4e78907e03b205c4f441bc19f03492c0a96f',
    ),
    **vdvae.VIEWS,
  ),
  model=dict(image_size=1024),
)
DIFFERENCES = {
  'vdvae': {
    'vdvae': dict(
      model=dict(
        width=16,
        custom_width_str='512:32,256:64,128:512,64:512,32:512,16:512,8:512,4:512,1:512',
        num_mixtures=2,
        input_mean=0.4387 * 255,  # the release scales pixels to [0, 1] first
        input_std=0.2743 * 255,
        enc_blocks='1024x1,1024d2,512x3,512d2,256x5,256d2,128x7,128d2,64x10,64d2,32x14,32d2,16x7,'
        '16d2,8x5,8d2,4x5,4d4,1x4',
        dec_blocks='1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x20,64m32,64x14,128m64,128x7,256m128,'
        '256x2,512m256,1024m512',
      ),
      optimizer=dict(learning_rate=7e-5, clip_norm=360.0),
      train=dict(
        batch_size=32,  # the release: 1 per GPU on 32
        num_steps=1_700_000,
        ema_decay=0.999,
        skip_threshold=500.0,
      ),
      evals=dict(
        published_bpd=2.42,
        pictures=dict(every=25_000, num=1, temperatures=(1.0, 0.9, 0.8, 0.7), num_partial=0),
      ),
      sample=dict(num=1),
    )
  },
  'efficient_vdvae': {
    'efficient_vdvae': dict(
      data=dict(require=dict(split_sha256=''), **efficient_vdvae.VIEWS),
      **faces.LARGE,
      evals=dict(**faces.LARGE_EVALS, published_bpd=2.3),
    ),
  },
}


def get_config(argument='vdvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('ffhq1024', argument, DATA, DIFFERENCES)
