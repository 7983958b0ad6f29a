"""Every config builds, with every argument, and fits its model."""

import dataclasses
import importlib
import pathlib

import pytest

from configs import systems
from hvae_tpu import models
from hvae_tpu.planning import config_tables
from hvae_tpu.training import optimizers
from hvae_tpu.training.config import check_config

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = {
  p.stem: importlib.import_module(f'configs.{p.stem}')
  for p in (ROOT / 'configs').glob('*.py')
  if p.stem != 'nvae_yaml'  # its argument is a file: test_nvae_configs.py
}
ARGUMENTS = [
  (name, system if variant == system else f'{system},{variant}')
  for name, file in sorted(FILES.items())
  for system, variants in file.DIFFERENCES.items()
  for variant in variants
]
COUNTS = {
  ('cifar10', 'vdvae'): 39_145_700,
  ('imagenet32', 'vdvae'): 119_280_868,
  ('imagenet64', 'vdvae'): 125_005_860,
  ('ffhq256', 'vdvae'): 114_874_852,
  ('ffhq1024', 'vdvae'): 109_366_904,
  ('celeba64', 'efficient_vdvae'): 131_402_212,
  ('celeba64', 'efficient_vdvae,compact'): 25_426_788,
  ('celebahq1024', 'efficient_vdvae'): 75_869_284,
  ('celebahq256', 'efficient_vdvae'): 208_873_444,
  ('celebahq256', 'efficient_vdvae,5bit'): 197_677_156,
  ('celebahq256', 'efficient_vdvae,compact'): 71_233_284,
  ('cifar10', 'efficient_vdvae'): 56_598_692,
  ('cifar10', 'efficient_vdvae,c1'): 18_124_020,
  ('ffhq1024', 'efficient_vdvae'): 75_869_284,
  ('ffhq256', 'efficient_vdvae'): 208_873_444,
  ('ffhq256', 'efficient_vdvae,5bit'): 197_677_156,
  ('ffhq256', 'efficient_vdvae,5bit,c1'): 67_032_644,
  ('ffhq256', 'efficient_vdvae,compact'): 71_233_284,
  ('imagenet32_box', 'efficient_vdvae'): 145_068_388,
  ('imagenet32_box', 'efficient_vdvae,c1'): 52_289_316,
  ('imagenet32_box', 'efficient_vdvae,compact'): 19_561_188,
  ('imagenet64_box', 'efficient_vdvae'): 168_367_588,
  ('imagenet64_box', 'efficient_vdvae,c1'): 57_000_740,
  ('imagenet64_box', 'efficient_vdvae,compact'): 42_550_340,
  ('mnist', 'efficient_vdvae'): 69_919_585,
  ('mmnist', 'cwvae'): 12_465_617,
  ('minerl', 'cwvae'): 34_391_827,
  ('mazes', 'cwvae'): 12_468_947,
  ('celeba64', 'nvae'): 153_281_364,
  ('celebahq256', 'nvae'): 330_798_664,
  ('cifar10', 'nvae'): 130_852_480,
  ('ffhq256', 'nvae'): 330_798_664,
  ('imagenet32', 'nvae'): 268_509_444,
  ('mnist', 'nvae'): 33_363_134,
  ('images64', 'nvae'): 6_329_844,
  ('images64', 'nvae,tiny'): 32_584_410,
  ('images64', 'nvae,gaussian_mixture'): 6_335_934,
  ('images64', 'nvae,gaussian_mixture5latent'): 25_381_266,
  ('images64', 'nvae,logistic_mixture10latent'): 25_394_316,
  ('images64', 'nvae,big_logistic_mixture20latentnoflows'): 18_584_772,
  ('images64', 'nvae,large_logistic_mixture20latentnoflows'): 32_262_692,
  ('images64', 'nvae,penguin'): 36_689_892,
  # Count of the reference, less two numbers of GECO, which belong to the state in this package.
  ('tetrominoes', 'efficient_morl'): 467_238 - 2,
  ('multi_dsprites', 'efficient_morl'): 666_502 - 2,
  ('clevr6', 'efficient_morl'): 666_502 - 2,
  ('clevr10', 'efficient_morl'): 666_502 - 2,
  ('clevrtex', 'efficient_morl'): 666_502 - 2,
  ('tetrominoes', 'slot_attention'): 419_236,
  ('multi_dsprites', 'slot_attention'): 479_204,
  ('clevr6', 'slot_attention'): 890_180,
}
SETS = {'mmnist': 'moving_mnist'}  # config -> data set, where they have not the same name


@pytest.mark.parametrize('debug', [False, True], ids=['', 'debug'])
@pytest.mark.parametrize(('name', 'argument'), ARGUMENTS)
def test_builds(name, argument, debug):
  argument += ',debug' if debug else ''
  config = FILES[name].get_config(argument)
  assert config.name == f'{name}-{argument}' and config.data.name == SETS.get(name, name)
  assert config.is_locked and argument.split(',')[0] in FILES[name].__doc__
  for platform in ('cpu', 'tpu', 'gpu'):
    models.create(config.model.to_dict(), platform)
  check_config(config)
  optimizers.create(config.optimizer, config.train.num_steps)
  with pytest.raises(AttributeError):
    config.train.batchsize = 1


@pytest.mark.parametrize('name', models.MODELS)
def test_model_section_has_the_fields_of_the_model(name):
  section = systems.SYSTEMS[name].base().model
  assert section.name == name
  assert set(section) - {'name'} == {f.name for f in dataclasses.fields(models.MODELS[name])}


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'argument'), COUNTS)
def test_parameter_counts_of_the_release(name, argument):
  number = COUNTS[name, argument]
  assert config_tables.parameter_count(FILES[name].get_config(argument)) == number
  words = ' '.join(FILES[name].__doc__.split())
  shown = argument.removeprefix('efficient_vdvae,').removeprefix('nvae,')
  assert f'{shown}: {number:,} parameters' in words


# Latent dimensions of an image and blocks of the hierarchy: Efficient-VDVAE, by config.
LATENTS = {
  ('celeba64', 'efficient_vdvae'): (3_514_432, '1:2 4:4 8:7 16:11 32:16 64:22'),
  ('celebahq1024', 'efficient_vdvae'): (
    395_468_928,
    '1:2 4:4 8:5 16:8 32:12 64:13 128:13 256:6 512:5 1024:4',
  ),
  ('cifar10', 'efficient_vdvae'): (827_488, '1:3 4:4 8:7 16:11 32:22'),
  ('cifar10', 'efficient_vdvae,c1'): (413_744, '1:3 4:4 8:7 16:11 32:22'),
  ('ffhq256', 'efficient_vdvae'): (43_442_304, '1:2 4:4 8:5 16:10 32:16 64:13 128:13 256:6'),
  ('ffhq256', 'efficient_vdvae,5bit'): (8_941_632, '1:2 4:4 8:5 16:10 32:22 64:14 128:8 256:1'),
  ('imagenet32_box', 'efficient_vdvae,c1'): (1_157_664, '1:6 4:7 8:19 16:25 32:16'),
  ('imagenet64_box', 'efficient_vdvae,c1'): (4_427_136, '1:6 4:7 8:19 16:25 32:16 64:11'),
  ('mnist', 'efficient_vdvae'): (72_352, '1:5 4:5 8:10 16:2 32:1'),
}


@pytest.mark.parametrize(('name', 'argument'), LATENTS)
def test_hierarchies_of_the_release(name, argument):
  model = models.create(FILES[name].get_config(argument).model.to_dict(), 'tpu')
  blocks = {run.res: 0 for run in model.down_runs}
  for run in model.down_runs:
    blocks[run.res] += run.count
  described = ' '.join(f'{res}:{n}' for res, n in blocks.items())
  assert (int(model.level_sizes.sum()), described) == LATENTS[name, argument]


def test_variants_of_variants():
  config = FILES['ffhq256'].get_config('efficient_vdvae,5bit,c1')
  assert (config.model.num_bits, config.model.output_distribution_base) == (5, 'logstd')
  assert config.train.skip_threshold == 1000 and config.evals.published_bpd is None
  for wrong in ('c1', '5bit,compact', 'c1,5bit'):
    with pytest.raises(ValueError, match='5bit,c1'):
      FILES['ffhq256'].get_config(f'efficient_vdvae,{wrong}')


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'argument'), ARGUMENTS)
def test_debug_is_small(name, argument):
  config = FILES[name].get_config(f'{argument},debug')
  maps = 0
  if 'efficient_vdvae' in argument:  # a learned map of 8 channels at every resolution
    maps = 11 * config.model.image_size**2
  if argument.startswith('cwvae'):  # frames grow from a pixel of 1024 channels
    maps = 1024 * (5 * 5 * 4 + 13)
  if argument.startswith(('efficient_morl', 'slot_attention')):  # encoder and decoder are given
    maps = 400_000
  assert config_tables.parameter_count(config) < 50_000 + maps


@pytest.mark.parametrize('name', FILES)
def test_the_default_is_one_that_there_is(name):
  assert FILES[name].get_config().name.split('-')[1] in FILES[name].DIFFERENCES


@pytest.mark.parametrize('argument', ['cwvae', 'vdvae,c1', 'vdvae,debug,huge', '', 'VDVAE'])
def test_what_there_is_not_is_refused_with_what_there_is(argument):
  with pytest.raises(ValueError) as caught:
    FILES['cifar10'].get_config(argument)
  message = str(caught.value)
  assert message.startswith(f'configs/cifar10.py has no {argument!r}')
  assert 'vdvae or vdvae,paper' in message and 'debug' in message


def test_a_misspelt_difference_is_refused():
  with pytest.raises((AttributeError, KeyError)):
    systems.build('x', 'vdvae', {}, {'vdvae': {'vdvae': dict(train=dict(batchsize=1))}})


def test_paper_restores_the_threshold():
  assert FILES['cifar10'].get_config().train.skip_threshold == 1000
  assert FILES['cifar10'].get_config('vdvae,paper').train.skip_threshold == 400


def test_unknown_names_and_fields_of_models():
  section = systems.SYSTEMS['vdvae'].base().model.to_dict()
  with pytest.raises(models.UserError, match="config.model.name='vae' must be one of vdvae"):
    models.create(section | {'name': 'vae'}, 'cpu')
  with pytest.raises(models.UserError, match='config.model has depth, which vdvae does not know'):
    models.create(section | {'depth': 3}, 'cpu')
