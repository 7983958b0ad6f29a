"""Moving MNIST, two digits: cwvae[,paper]; also with ,debug.

    python -m data_prep.build moving_mnist
    python -m hvae_tpu.main --config=configs/mmnist.py

cwvae: 12,465,617 parameters. Training on clips of 100 frames, evaluation on 1000. According to a
summary, the paper compares by FVD, which is not computed here.
"""

from configs import systems

DATA = dict(
  data=dict(name='moving_mnist', eval_seq_len=1000),
  model=dict(image_channels=1, dec_stddev=1.0),
)
DIFFERENCES = {
  'cwvae': {
    'cwvae': dict(train=dict(num_epochs=300)),
    'paper': dict(train=dict(batch_size=100)),  # the code has 50
  }
}


def get_config(argument='cwvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('mmnist', argument, DATA, DIFFERENCES)
