"""GQN mazes: cwvae[,paper]; also with ,debug.

    python -m data_prep.build mazes
    python -m hvae_tpu.main --config=configs/mazes.py

cwvae: 12,468,947 parameters. Training on clips of 100 frames, evaluation on 300.
"""

from configs import systems

DATA = dict(
  data=dict(name='mazes', eval_seq_len=300),
  model=dict(image_channels=3, dec_stddev=0.1),
)
DIFFERENCES = {
  'cwvae': {
    'cwvae': dict(train=dict(num_epochs=100)),
    'paper': dict(train=dict(batch_size=100, num_epochs=300)),  # the code has batch 50, 100 epochs
  }
}


def get_config(argument='cwvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('mazes', argument, DATA, DIFFERENCES)
