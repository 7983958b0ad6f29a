"""MineRL Navigate: cwvae[,paper]; also with ,debug.

    python -m data_prep.build minerl
    python -m hvae_tpu.main --config=configs/minerl.py

cwvae: 34,391,827 parameters. Training on clips of 100 frames, evaluation on 500. A summary of the
paper gives SSIM 0.65 and PSNR 23.23 dB for the frames after 36 context frames. It does not say how
many predictions each is the best of.
"""

from configs import systems

DATA = dict(
  data=dict(name='minerl', eval_seq_len=500),
  model=dict(image_channels=3, dec_stddev=0.4),
)
DIFFERENCES = {
  'cwvae': {
    'cwvae': dict(
      model=dict(cell_stoch_size=100, cell_deter_size=800, cell_embed_size=800),
      optimizer=dict(learning_rate=1e-4),
      train=dict(num_epochs=600),
    ),
    # The code has batch 50, a learning rate of 1e-4 and 600 epochs.
    'paper': dict(optimizer=dict(learning_rate=3e-4), train=dict(batch_size=100, num_epochs=300)),
  }
}


def get_config(argument='cwvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('minerl', argument, DATA, DIFFERENCES)
