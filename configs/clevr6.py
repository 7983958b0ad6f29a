"""CLEVR scenes of up to six objects, 96x96: efficient_morl, slot_attention; each also with ,debug.

    python -m data_prep.build clevr6
    python -m hvae_tpu.main --config=configs/clevr6.py

efficient_morl: 666,500 parameters. Published: foreground ARI 0.9805, MSE 3.64e-4, KL 187.1 nats
(arXiv 2106.03630, released checkpoint of seed 2004) on 320 test scenes after 300k steps, 17 h on 8
GPUs. slot_attention: 890,180 parameters; its baseline.
"""

from configs import systems

DATA = dict(data=dict(name='clevr6'), model=dict(image_size=96, num_slots=7))
DIFFERENCES = {
  'efficient_morl': {
    'efficient_morl': dict(
      model=dict(
        likelihood='mixture',
        refine_loss_reduction=4,  # 8 GPUs
        geco_target=-2.206,
      ),
      evals=dict(batch_size=16),
    )
  },
  'slot_attention': {'slot_attention': dict(model=dict(image_decoder='big'))},
}


def get_config(argument='efficient_morl'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('clevr6', argument, DATA, DIFFERENCES)
