"""What every system shares: every field of the trainer, with its default."""

import ml_collections
from ml_collections import config_dict

from hvae_tpu import evals, settings
from hvae_tpu.training.config import DataConfig, MeshConfig, TrainConfig
from hvae_tpu.training.optimizers import OptimizerConfig


def base() -> ml_collections.ConfigDict:
  """Sections seed, data, mesh, train, optimizer, evals and one per mode; systems add the model."""
  config = ml_collections.ConfigDict()
  config.name = ''  # `<data set>-<argument>`; names the default work directory
  config.seed = 0  # of initial weights, order of the data, and all noise; below 2**32

  config.data = settings.defaults(DataConfig)
  config.mesh = settings.defaults(MeshConfig)
  config.train = settings.defaults(TrainConfig)
  config.optimizer = settings.defaults(OptimizerConfig)
  config.evals = evals.defaults()
  config.sample = dict(
    seed=0,
    split='test',  # of the images to reconstruct
    num=8,
    temperatures=(1.0, 0.9, 0.8, 0.7),  # as in evals.pictures
    temperature_per_level=(),
    output_temperature=config_dict.placeholder(float),  # of the pixels; None: that of the model
    num_partial=6,
    partial_temperature=0.1,
    refresh_iterations=0,
    refresh_num=16,
  )
  config.div_stats = dict(split='train', share=0.2, seed=0)  # part of the split to average over
  config.reconstruct = dict(
    split='test',
    quantiles=(1.0,),  # shares of latent channels kept; less than 1 needs div_stats
    num_pictures=8,
    columns=8,  # of the picture grid
    save_targets=False,  # also the originals alone
    seed=0,
  )
  config.encode = dict(
    split='test',
    quantile=1.0,  # as in reconstruct
    num=0,  # first examples of the split; 0: all
    moments=True,  # with means and scales, which decoding does not need
    formats=('array_record', 'npz'),
    shard_mb=256,
    seed=0,
  )
  config.decode = dict(
    latents='',  # folder that encode wrote; '' is the newest in the work directory
    num=64,  # first examples; 0: all
    keep=-1,  # first (coarsest) groups kept; -1: all. The others are drawn from the prior
    temperature=(1.0,),  # of those: a number or 'linear(a,b)', or one number per level
    columns=8,
    seed=config_dict.placeholder(int),  # None: noise of the encoding, which gives its pictures
  )
  config.open_loop = dict(  # as in evals; for --mode=open_loop and --mode=eval
    seed=0,
    split='test',
    context=36,
    seq_len=0,
    batch_size=0,
    num_examples=100,
    num_samples=1,
    chunk=0,
    ssim_data_range=2.0,
    psnr_data_range=1.0,
    grids=True,  # also as pictures
    grid_strict_reference=False,  # without the last strip, which the reference loses
  )
  config.plan = dict(
    topology='v5e:4x4',  # slices, with commas; --topology sets it
    programs=('train', 'eval'),
    search=False,  # the largest batch of every remat and dtype; always where a program does not fit
    remats=('blocks', 'convs', 'none'),
    dtypes=('float32', 'bfloat16'),
    max_batch=4096,  # global, of the search
    efficiency=0.1,  # share of the peak that steps are expected to reach
    effort='',  # of the compiler; EFFORT_O1 takes a quarter of the time, and its memory differs
  )
  config.segment = dict(
    split='test',
    num_examples=320,  # first ones of the split; 0: all
    num_records=10,  # of them that are stored whole, with a figure
    show_attention=False,  # slots of figures as what they attend to, not as what they paint
    seed=0,
  )
  config.disentangle = dict(
    split='test',
    num_range=100,  # scenes that the ranges of dimensions are measured on
    num_active=100,  # scenes that their activeness is measured on
    num_examples=320,  # scenes that codes and factors are taken from; 0: all
    dci_modes=('per_factor',),  # or 'reference', as EfficientMORL's code has it
    factors=(),  # of the records; () takes all but visibility and pixel_coords
    seed=0,
  )
  config.traverse = dict(
    split='test',
    num_scenes=1,  # first ones of the split
    num_dims=10,  # the most active ones
    frames=8,
    fps=4.0,
    limits='range',  # of the values; or 'reference', as EfficientMORL's code has it
    seed=0,
  )
  config.geco_target = dict(share=0.1)  # of train.num_steps
  config.explore = dict(
    groups=(),  # numbers of groups from the coarsest, 0, on; (): all
    rows=4,  # samples
    num=7,  # variations of each
    noise_std=0.4,  # of the new noise of the group
    temperature=(1.0,),  # of the samples, as in decode
    position='all',  # of the group's map: all, one as 'row,column', or each in turn
    differences=False,  # show what changed, on grey, instead of the variations
    statistic='mean',  # of the pixels: sample or mean
    fps=4.0,
    seed=0,
    refresh_iterations=0,  # as in evals.pictures
    refresh_num=16,
  )
  config.interpolate = dict(
    images='',  # two picture files, '(A.png,B.png)'
    resize=False,  # cut out their central squares, and resize them to the model's size
    num=8,  # points between them
    paths=('linear', 'spherical'),
    combine=True,  # also coarse groups of the one with fine groups of the other
    statistic='mean',
    columns=12,  # of the combinations
    fps=8.0,
    seed=0,
  )
  config.pick = dict(
    choose=(),  # numbers of candidates, in the order to show them; (): asked for at a terminal
    sheets=4,  # of nine candidates
    temperature=(1.0,),
    statistic='mean',
    columns=3,  # of the sheet of the chosen ones
    seed=0,
    refresh_iterations=0,
    refresh_num=16,
  )
  config.quality = dict(
    num=1000,  # samples
    num_true=5000,  # first pictures of the training and the test split; 0: all
    temperature=(1.0,),
    statistic='sample',
    inception='',  # file of Inception-v3 weights, for the FID and the Inception score
    seed=0,
    refresh_iterations=0,
    refresh_num=16,
  )
  config.report = dict(
    split='test',  # of the pictures to reconstruct
    num=8,  # pictures a row
    temperatures=(1.0, 0.8, 0.6),  # as in evals.pictures
    partial_temperature=0.1,
    statistic='sample',
    seed=0,
    refresh_iterations=0,
    refresh_num=16,
  )
  config.reset = dict(yes=False)  # really delete
  config.replay = dict(
    bundle=''
  )  # folder `nonfinite-<step>`; '' is the newest in the work directory
  return config
