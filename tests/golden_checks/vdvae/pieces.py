"""Parts of the release on their own: likelihood, primitives, preprocessing, splits and strings."""

import functools
import hashlib
import re
from typing import Any

import jax
import numpy as np

from hvae_tpu.models.vdvae import VDVAE, layout
from hvae_tpu.nn import distributions, layers
from tests.golden_checks.vdvae import computed, networks
from tests.golden_checks.vdvae.release import Cases
from tests.support import golden_files
from tests.support.golden_files import Golden, Tolerance, compare, in_turn
from tests.support.tracing import noise

# Values reach 160 nats per dimension, and lose digits to cancellation just above the threshold
# where the density takes over.
DMOL_NLL = Tolerance(1e-5, 3e-4)
DMOL_PIXEL = Tolerance(1e-3, 2e-2)
DMOL_GRADIENT = Tolerance(1e-2, 1e-5)


def dmol_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  if golden.has('output/nll_*', 'output/loglik_*', 'grad/logits'):
    cases['log_prob'] = functools.partial(_check_log_prob, golden)
  if golden.has('output/sample_*'):
    cases['samples'] = functools.partial(_check_samples, golden)
  return cases


def _dmol_model(golden: Golden) -> VDVAE:
  return VDVAE(
    **networks.ONE_BLOCK,
    num_mixtures=golden.config['num_mixtures'],
    num_bits=5 if golden.config['low_bit'] else 8,
    sample_rounding='truncate',
  )


def _check_log_prob(golden: Golden) -> None:
  model, target = _dmol_model(golden), golden['input/x_target']
  if 'input/image_uint8' in golden:
    scaled = model.scale_target(golden['input/image_uint8'])
    compare({'x_target': scaled}, {'x_target': target}, lambda _: networks.PREPROCESSING)
  dims = target[0].size

  def total(logits):
    per_pixel = model.log_likelihood(logits, target)
    return -per_pixel.sum() / dims, per_pixel

  run = golden_files.quick_jit(jax.value_and_grad(total, has_aux=True))
  (_, per_pixel), grad = run(golden['input/logits'])
  per_example = per_pixel.sum((1, 2))
  results = {
    'output/nll_per_example_nats_per_dim': -per_example / dims,
    'output/loglik_per_example_nats': per_example,
    'output/loglik_per_pixel_nats': per_pixel,
    'grad/logits': grad,
  }
  tolerances = {
    'output/nll_per_example_nats_per_dim': DMOL_NLL,
    'output/loglik_per_example_nats': Tolerance(DMOL_NLL.rtol, DMOL_NLL.atol * dims),
    'output/loglik_per_pixel_nats': DMOL_PIXEL,
    'grad/logits': DMOL_GRADIENT,
  }
  stored = {key: golden[key] for key in results if key in golden}
  compare(results, stored, tolerances.__getitem__)


def _check_samples(golden: Golden) -> None:
  """Checks samples from the file's uniform draws, and with all draws one half."""
  model = _dmol_model(golden)
  draws = [golden['input/u_mixture'], golden['input/u_logistic']]

  def draw(logits, *uniforms):
    rng = jax.random.key(0)
    mixture = distributions.mixture_by_colour(logits, model.num_mixtures)
    with noise(uniform=in_turn(*uniforms)):
      return distributions.dmol_sample(rng, mixture), model.pictures(logits, rng)

  run = golden_files.quick_jit(draw)
  for suffix, uniforms in (('', draws), ('_u_half', [np.full_like(u, 0.5) for u in draws])):
    x, image = run(golden['input/logits'], *uniforms)
    compare_samples(golden, suffix, x, image, computed.FEATURES)


def compare_samples(
  golden: Golden, suffix: str, x: np.ndarray, image: np.ndarray, tolerance: Tolerance
) -> None:
  """Compares draws, before and after rounding, with the file."""
  results = {f'sample_float{suffix}': x}
  if stored := golden_files.select(golden, results):
    compare(results, stored, lambda _: tolerance)
  if f'output/sample_uint8{suffix}' in golden:
    golden_files.compare_images(image, golden[f'output/sample_uint8{suffix}'])


# Patterns of keys; each one shows that a file holds primitives.
PRIMITIVE_KEYS = (
  ('input/qm', 'output/kl'),
  ('output/gelu_*',),
  ('output/avg_pool*',),
  ('output/nearest_up*',),
  ('output/pad_channels*',),
)


def primitive_cases(golden: Golden) -> Cases:
  return {
    name: functools.partial(_check_primitive, golden, name) for name in golden.names_under('output')
  }


def _check_primitive(golden: Golden, name: str) -> None:
  operation, number = re.fullmatch(r'(.*?)(\d*)', name).groups()
  value = PRIMITIVES[operation](golden, int(number or 0))
  tolerance = computed.LOSS if operation == 'kl' else computed.FEATURES
  compare({name: value}, {name: golden[f'output/{name}']}, lambda _: tolerance)


def _on_images(function):
  """Applies an NHWC function of ours to the stored NCHW array."""

  def apply(golden: Golden, number: int) -> Any:
    return function(golden['input/t'].transpose(0, 2, 3, 1), number).transpose(0, 3, 1, 2)

  return apply


def _kl(golden: Golden, _: int) -> Any:
  posterior, prior = (
    distributions.Normal(golden[f'input/{side}m'], golden[f'input/{side}v']) for side in 'qp'
  )
  return posterior.kl(prior)


PRIMITIVES = {
  'kl': _kl,
  'gelu_erf': lambda golden, _: layers.gelu(golden['input/gelu_x'], False),
  'gelu_tanh': lambda golden, _: layers.gelu(golden['input/gelu_x'], True),
  'avg_pool': _on_images(layers.average_pool),
  'nearest_up': _on_images(layers.upsample_nearest),
  'pad_channels': _on_images(layers.pad_channels),
}


def preprocess_cases(golden: Golden) -> Cases:
  return {
    name: functools.partial(_check_preprocess, golden, name)
    for name in golden.names_under('output')
  }


def _check_preprocess(golden: Golden, dataset: str) -> None:
  model, level = VDVAE(**networks.ONE_BLOCK, **networks.scaling(dataset)), golden['input/level']
  results = {'x': model.scale_input(level), 'x_target': model.scale_target(level)}
  compare(results, golden.under(f'output/{dataset}'), lambda _: networks.PREPROCESSING)


# Seeds of the legacy NumPy generator. CIFAR-10 takes its validation set from the front of the
# permutation, as scikit-learn splits; the others from its end.
SPLIT_SEEDS = {'cifar10': 11172018, 'imagenet32': 42, 'imagenet64': 42, 'ffhq_256': 5}


def split_cases(golden: Golden) -> Cases:
  cases: Cases = {name: functools.partial(_check_split, golden, name) for name in golden.config}
  cases['arrays'] = functools.partial(_check_split_arrays, golden)
  return cases


@functools.cache
def _split(dataset: str, total: int, num_valid: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  order = np.random.RandomState(seed).permutation(total)
  if dataset == 'cifar10':
    return order[num_valid:], order[:num_valid]
  return order[:-num_valid], order[-num_valid:]


def _split_of(golden: Golden, dataset: str) -> tuple[np.ndarray, np.ndarray]:
  facts = golden.config[dataset]
  seed = facts.get('seed', SPLIT_SEEDS.get(dataset))
  return _split(dataset, facts['n_total'], facts['n_valid'], seed)


def _check_split(golden: Golden, dataset: str) -> None:
  train, valid = _split_of(golden, dataset)
  digest = lambda index: hashlib.sha256(index.astype('<i4').tobytes()).hexdigest()
  facts = golden.config[dataset]
  results = {}
  for key in set(facts) - {'n_total', 'n_valid', 'seed', 'note'}:
    index = train if key.startswith('train_') else valid
    kind = key.removeprefix('train_')
    if kind == 'sha256_int32_le':
      results[key] = digest(index)
    elif match := re.fullmatch(r'(first|last)(\d+)', kind):
      count = int(match[2])
      results[key] = (index[:count] if match[1] == 'first' else index[-count:]).tolist()
  assert results == {key: facts[key] for key in results}


def _check_split_arrays(golden: Golden) -> None:
  for name, stored in golden.under('output').items():
    side, first, dataset = re.fullmatch(r'(train|valid)_index_(?:first(\d+)_)?(.*)', name).groups()
    index = _split_of(golden, dataset)[('train', 'valid').index(side)]
    np.testing.assert_array_equal(index[: int(first)] if first else index, stored)


def parser_cases(golden: Golden) -> Cases:
  checks = {
    'valid': _check_valid_strings,
    'invalid': _check_invalid_strings,
    'width': _check_widths,
  }
  return {
    name: functools.partial(check, golden)
    for name, check in checks.items()
    if golden.has(f'{name}/*')
  }


def _check_valid_strings(golden: Golden) -> None:
  for string, expected in golden.under('valid').items():
    assert [list(block) for block in layout.parse_blocks(string)] == expected, string


def _check_invalid_strings(golden: Golden) -> None:
  for string, expected in golden.under('invalid').items():
    assert _error_of(layout.parse_blocks, string) == expected['error'], string


def _check_widths(golden: Golden) -> None:
  for case in golden.under('width').values():
    string = case['custom_width_str']
    if 'error' in case:
      assert _error_of(layout.parse_widths, string) == case['error'], string
    for res, width in case.get('lookup', {}).items():
      assert layout.parse_widths(string).get(int(res), case['width']) == width, (string, res)


def _error_of(function, argument) -> str:
  """Returns the name of the raised exception, or ''."""
  try:
    function(argument)
  except Exception as error:
    return type(error).__name__
  return ''
