"""Every config builds, with every argument, and fits its model."""

import dataclasses
import importlib
import pathlib

import jax
import numpy as np
import pytest

from configs import systems
from hvae_tpu import models, optimizers

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = {
  p.stem: importlib.import_module(f'configs.{p.stem}') for p in (ROOT / 'configs').glob('*.py')
}
ARGUMENTS = [
  (name, system if variant == system else f'{system},{variant}')
  for name, file in sorted(FILES.items())
  for system, variants in file.DIFFERENCES.items()
  for variant in variants
]
COUNTS = {
  'cifar10': 39_145_700,
  'imagenet32': 119_280_868,
  'imagenet64': 125_005_860,
  'ffhq256': 114_874_852,
  'ffhq1024': 109_366_904,
}


def count(config) -> int:
  model = models.create(config.model.to_dict(), 'tpu')
  side = config.model.image_size
  image = jax.ShapeDtypeStruct((1, side, side, config.model.image_channels), np.uint8)
  params, _ = jax.eval_shape(model.init, jax.random.key(0), {'image': image})
  return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize('debug', [False, True], ids=['', 'debug'])
@pytest.mark.parametrize(('name', 'argument'), ARGUMENTS)
def test_builds(name, argument, debug):
  argument += ',debug' if debug else ''
  config = FILES[name].get_config(argument)
  assert config.name == f'{name}-{argument}' and config.data.name == name
  assert config.is_locked and argument.split(',')[0] in FILES[name].__doc__
  for platform in ('cpu', 'tpu', 'gpu'):
    models.create(config.model.to_dict(), platform)
  optimizers.create(config.optimizer, config.train.num_steps)
  with pytest.raises(AttributeError):
    config.train.batchsize = 1


@pytest.mark.parametrize('name', models.MODELS)
def test_model_section_has_the_fields_of_the_model(name):
  section = systems.SYSTEMS[name].base().model
  assert section.name == name
  assert set(section) - {'name'} == {f.name for f in dataclasses.fields(models.MODELS[name])}


@pytest.mark.parametrize('name', COUNTS)
def test_parameter_counts_of_the_release(name):
  config = FILES[name].get_config()
  assert count(config) == COUNTS[name]
  assert f'{COUNTS[name]:,} parameters' in FILES[name].__doc__


@pytest.mark.parametrize('name', FILES)
def test_debug_is_small(name):
  assert count(FILES[name].get_config('vdvae,debug')) < 50_000


@pytest.mark.parametrize('argument', ['nvae', 'vdvae,c1', 'vdvae,debug,huge', '', 'VDVAE'])
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
  assert FILES['cifar10'].get_config().train.drop_above == 1000
  assert FILES['cifar10'].get_config('vdvae,paper').train.drop_above == 400


def test_unknown_names_and_fields_of_models():
  section = systems.SYSTEMS['vdvae'].base().model.to_dict()
  with pytest.raises(models.UserError, match="config.model.name='vae' must be one of vdvae"):
    models.create(section | {'name': 'vae'}, 'cpu')
  with pytest.raises(models.UserError, match='config.model has depth, which vdvae does not know'):
    models.create(section | {'depth': 3}, 'cpu')
