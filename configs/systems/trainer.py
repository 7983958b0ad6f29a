"""What every system shares: every field of the trainer, with its default."""

import ml_collections
from ml_collections import config_dict

from hvae_tpu import evals, settings
from hvae_tpu.modes import MODES


def base() -> ml_collections.ConfigDict:
  """Sections seed, data, mesh, train, evals and one per mode; systems add model and optimizer."""
  config = ml_collections.ConfigDict()
  config.name = ''  # `<data set>-<argument>`; names the default work directory
  config.seed = 0  # of initial weights, order of the data, and all noise; below 2**32

  config.data = dict(
    name='',  # folder below root, written by `python -m data_prep.build NAME`
    root='',  # folder of all data sets; '' is $HVAE_DATA, else `data`
    fields=('image',),  # of a record, that models read
    require=dict(variant='', split_sha256=''),  # of the card and of train_split; '' takes any
    train_split='train',  # views of the data card
    valid_split='valid',  # evaluated during training
    test_split='test',  # evaluated by --mode=eval
    train_transforms=(),  # flip, binarize, crop:N, centre_crop:N; drawn anew at each visit
    eval_transforms=(),  # drawn once per example
    seq_len=0,  # frames of a training example of a video set; 0: whole sequences
    eval_seq_len=0,  # the same, of an evaluation example
    cache_mb=1024,  # a training split that takes no more is kept in memory on every host
    num_workers=0,  # reader processes; 0 reads in threads, faster unless decoding is costly
  )
  # Devices per axis; -1: the rest. Along spatial, they share the rows of an example.
  config.mesh = dict(data=-1, fsdp=1, spatial=1)
  config.train = dict(
    batch_size=32,  # global
    num_steps=1_000_000,
    num_epochs=config_dict.placeholder(int),  # not None: decides num_steps, once the data is known
    precision='highest',  # of convolutions and matrix products: default, high, highest
    clock='attempted',  # what schedules count: updates attempted or applied
    ema_decay=config_dict.placeholder(float),  # None: no average of the parameters
    skip_threshold=float('inf'),  # updates with a larger gradient norm are skipped
    max_skipped_in_row=500,  # then the run stops; 0: never
    skip_advances_step=False,  # skipped updates count for Adam's bias correction (vdvae-jax)
    log_every=1000,
    progress_metrics=('loss', 'grad_norm'),  # metrics on the progress line
    save_every=10_000,
    save_epochs=config_dict.placeholder(int),  # not None: decides save_every, as num_epochs does
    keep_latest=2,
    keep_every=0,  # also keep steps that are multiples of this
    best_metric='elbo/bpd',  # smallest value is --checkpoint=best
    profile_at=0,  # trace the program from this step since the start on, into train/; 0: never
    profile_steps=5,
    init_from='',  # work directory of a run whose weights to start from
    heartbeat_seconds=100,  # of several processes: all end so long after one has vanished
    allow_config_change=False,  # resume although the model, data or seed differ
  )
  config.evals = evals.defaults()
  for name, mode in MODES.items():
    if hasattr(mode, 'Options'):
      config[name] = settings.defaults(mode.Options)
  return config
