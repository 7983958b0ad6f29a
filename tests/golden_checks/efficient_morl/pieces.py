"""Parts alone: decoders, recurrences, scales, likelihoods, divergences, the baseline's pass."""

from collections.abc import Callable
import functools
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from hvae_tpu.importers import efficient_morl, tables
from hvae_tpu.models.efficient_morl import objective
from hvae_tpu.models.efficient_morl.decoders import Decoder
from hvae_tpu.models.efficient_morl.encoder import positions
from hvae_tpu.models.efficient_morl.gaussians import Gaussian, deviation
from hvae_tpu.models.efficient_morl.recurrence import GRU, DualGRU
from hvae_tpu.models.efficient_morl.slot_attention import SlotAttention, Slots
from tests.golden_checks.efficient_morl import forward, networks
from tests.golden_checks.efficient_morl.networks import Cases
from tests.support import golden_files, kinks
from tests.support.golden_files import Golden, Tolerance, compare, differences, fail_with
from tests.support.tracing import noise, watched

# The stored values are 1.02e-4 of their maximum off a computation in float64: sums over 9216 pixels
# behind five layers.
GRADIENT_OF_BIG = Tolerance(0, 0, of_max=1.5e-4)
RNG = jax.random.key(0)


def decoder_cases(golden: Golden) -> Cases:
  names = golden.names_under('input')
  cases: Cases = {}
  for name in names:
    if golden.has(f'output/{name}/*'):
      cases[name] = functools.partial(_check_decoder, golden, name)
    if golden.has(f'grad/{name}/*'):
      cases[f'{name}-grad'] = functools.partial(_check_decoder_gradient, golden, name)
  return cases


PREFIX = 'image_decoder.'  # of a decoder's weights


def _decoder_entries(golden: Golden, name: str) -> list[tables.Entry]:
  _, side, _ = golden.config['sizes'][name]
  model = SlotAttention(image_size=side, zdim=golden.config['z_size'], image_decoder=name)
  return [e for e in efficient_morl.PYTORCH.entries(model) if e.key.startswith(PREFIX)]


@functools.cache
def _decoder_run(name: str, side: int) -> Callable[..., Any]:
  """Returns (params, z) -> (gradients by both, (colours, logits of masks))."""
  decoder = Decoder(name, side, jnp.float32)

  def total(params, z):
    out = decoder.apply({'params': params['decoder']}, z)
    rgb, logits = jax.nn.sigmoid(out[..., :3]), out[..., 3]
    return rgb.sum() + 0.1 * jnp.square(logits).sum(), (rgb, logits)

  return golden_files.quick_jit(jax.grad(total, argnums=(0, 1), has_aux=True))


def _decoder_params(golden: Golden, name: str) -> Any:
  stored = {f'{PREFIX}{key}': value for key, value in golden.under(f'param/{name}').items()}
  return tables.import_params(_decoder_entries(golden, name), stored)


def _decoded(golden: Golden, name: str, moves: kinks.Moves = ()) -> Any:
  """Gradients by weights and by z, and colours and logits of masks; some biases are moved."""
  params = kinks.move(_decoder_params(golden, name), moves)
  run = _decoder_run(name, golden.config['sizes'][name][1])
  return run(params, golden[f'input/{name}/z'])


def _check_decoder(golden: Golden, name: str) -> None:
  _, (rgb, logits) = _decoded(golden, name)
  expected, side = golden.under(f'output/{name}'), rgb.shape[1]
  thinned = {key: value for key, value in expected.items() if key in ('rgb', 'mask_logits')}
  # Of large pictures every n-th line and column is stored, whatever n is.
  strides = [n for n in range(1, side) for v in thinned.values() if -(-side // n) == v.shape[-1]]
  messages = {}
  for stride in dict.fromkeys(strides or [1]):
    results = {
      'rgb': rgb.transpose(0, 3, 1, 2)[..., ::stride, ::stride],
      'mask_logits': logits[..., ::stride, ::stride],
      'rgb_sum': rgb.sum((1, 2)),
      'mask_sum': logits.sum((1, 2)),
    }
    messages = differences(results, expected, lambda _: networks.ARRAY)
    if not messages:
      break
  fail_with(messages, len(expected))


def _check_decoder_gradient(golden: Golden, name: str) -> None:
  entries = _decoder_entries(golden, name)

  def gradients_at(moves):
    (by_params, by_z), _ = _decoded(golden, name, moves)
    gradients = tables.export_params(entries, by_params)
    return {key.removeprefix(PREFIX): value for key, value in gradients.items()} | {'z': by_z}

  tolerance = GRADIENT_OF_BIG if name == 'big' else networks.GRADIENT
  stored, biases = golden.under(f'grad/{name}'), kinks.bias_names(_decoder_params(golden, name))
  differ = lambda grads: differences(grads, stored, lambda _: tolerance)
  fail_with(kinks.real_differences(differ, gradients_at, biases), len(stored))


# Patterns of keys; each one shows that a file holds components.
COMPONENT_KEYS = (
  ('output/pos_embed_*',),
  ('input/softplus_raw',),
  ('output/dual_gru/*',),
  ('output/gru/*',),
  ('output/lik/*',),
  ('output/kl/*',),
)


def component_cases(golden: Golden) -> Cases:
  checks = {
    'output/pos_*': _check_positions,
    'input/softplus_raw': _check_scale,
    'output/dual_gru/*': _check_dual,
    'output/gru/*': _check_gru,
    'output/kl/*': _check_kl,
    'output/lik/mask_logprobs': _check_canvas,
    'output/lik/mean_image': _check_canvas,
  }
  cases: Cases = {
    check.__name__.removeprefix('_check_'): functools.partial(check, golden)
    for pattern, check in checks.items()
    if golden.has(pattern)
  }
  for sd in golden.names_under('output/lik'):
    if sd.startswith('sd'):
      cases[f'likelihood_{sd}'] = functools.partial(_check_likelihood, golden, sd)
  return cases


def _check_positions(golden: Golden) -> None:
  results = {key: value for key, value in golden.under('output').items() if key.startswith('pos_')}
  ours = {key: positions(value.shape[1])[None] for key, value in results.items()}
  compare(ours, results, lambda _: Tolerance(0, 1e-6))


def _check_scale(golden: Golden) -> None:
  raw = golden['input/softplus_raw']
  std, slope = golden_files.quick_jit(jax.vmap(jax.value_and_grad(deviation)))(raw)
  results = {'output/std': std, 'grad/softplus_raw': slope}
  expected = {key: golden[key] for key in results if key in golden}
  compare(results, expected, lambda _: networks.ARRAY)


def _cell(golden: Golden, name: str, keys: dict[str, str]) -> Any:
  """Parameters of a recurrence: ours by path -> name in the file."""
  tensors = golden.under(f'param/{name}')
  assert set(keys.values()) == set(tensors)
  turned = {path: tensors[key].T for path, key in keys.items()}
  return traverse_util.unflatten_dict(turned, sep='/')


def _check_dual(golden: Golden) -> None:
  size = golden.config['z_size']
  kernels = [f'{name}_{half}' for name in ('ih', 'hh', 'in', 'hn') for half in (1, 2)]
  biases = [f'bias_{name}' for name in ('ih', 'hh', 'in', 'hn')]
  keys = {k: f'cell.weight_{k}' for k in kernels} | {b: f'cell.{b}' for b in biases}
  x, h = golden['input/dual_gru/x'][0], golden['input/dual_gru/h']
  halves = lambda v: tuple(jnp.split(v, 2, axis=-1))

  def total(params, x, h):
    new = jnp.concatenate(DualGRU().apply({'params': params}, halves(x), halves(h)), axis=-1)
    return (new * jnp.linspace(0.5, 1.5, 2 * size)).sum(), new

  run = golden_files.quick_jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))
  (params, by_x, by_h), new = run(_cell(golden, 'dual_gru', keys), x, h)
  compare({'': new}, {'': golden['output/dual_gru/h_new']}, lambda _: networks.ARRAY)
  gradients = {key: params[path].T for path, key in keys.items()} | {'x': by_x[None], 'h': by_h}
  if golden.has('grad/dual_gru/*'):
    compare(gradients, golden.under('grad/dual_gru'), lambda _: networks.GRADIENT)


def _check_gru(golden: Golden) -> None:
  names = {'input': 'ih', 'state': 'hh'}
  keys = {f'{ours}/kernel': f'weight_{theirs}_l0' for ours, theirs in names.items()}
  keys |= {f'{ours}/bias': f'bias_{theirs}_l0' for ours, theirs in names.items()}
  size = golden['output/gru/h_new'].shape[-1]
  x, h = golden['input/dual_gru/x'][0, :, :size], golden['input/dual_gru/h'][:, :size]
  new = golden_files.quick_jit(GRU().apply)({'params': _cell(golden, 'gru', keys)}, x, h)
  compare({'': new}, {'': golden['output/gru/h_new']}, lambda _: networks.ARRAY)


def _check_kl(golden: Golden) -> None:
  p, q = (Gaussian(*jnp.split(golden[f'input/kl/{name}'], 2, axis=-1)) for name in 'pq')
  results = {'p_q': p.kl(q).sum(-1), 'p_std_normal': p.kl().sum(-1)}
  compare(results, golden.under('output/kl'), lambda _: networks.ARRAY)


def _canvas(rgb: Any, logits: Any) -> objective.Canvas:
  """Returns the canvas of decoders with these outputs, [B, K, C, H, W] each."""
  colours = jax.nn.sigmoid(jnp.moveaxis(rgb, 2, -1))
  return objective.Canvas(colours, jax.nn.log_softmax(logits[:, :, 0], axis=1))


def _logits(golden: Golden) -> tuple[Any, Any]:
  return tuple(golden[f'input/lik/{name}_logits'] for name in ('rgb', 'mask'))


def _check_canvas(golden: Golden) -> None:
  painted = _canvas(*_logits(golden))
  results = {
    'mean_image': painted.mean.transpose(0, 3, 1, 2),
    'mask_logprobs': painted.log_masks[:, :, None],
  }
  compare(results, golden_files.select(golden, results, 'output/lik'), lambda _: networks.ARRAY)


def _check_likelihood(golden: Golden, name: str) -> None:
  log_scale = float(np.log(np.float32(name.removeprefix('sd'))))
  x = networks.images(golden, 'input/lik/image_u8_nchw') / np.float32(255)
  for theirs, ours in (('gmm', 'mixture'), ('gaussian', 'gaussian')):

    def total(logits, nll_of=objective.LIKELIHOODS[ours]):
      nll = nll_of(_canvas(*logits), x, log_scale)
      return nll.sum(), nll

    grad, nll = golden_files.quick_jit(jax.grad(total, has_aux=True))(_logits(golden))
    if f'output/lik/{name}/{theirs}_nll' in golden:
      expected = golden[f'output/lik/{name}/{theirs}_nll']
      compare({'nll': nll}, {'nll': expected}, lambda _: networks.ARRAY)
    if golden.has(f'grad/lik/{name}/{theirs}/*'):
      gradients = dict(zip(('rgb_logits', 'mask_logits'), grad, strict=True))
      stored = golden.under(f'grad/lik/{name}/{theirs}')
      compare(gradients, stored, lambda _: networks.GRADIENT)


def baseline_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  if golden.has('grad/*'):
    cases['grad'] = functools.partial(_check_baseline_gradient, golden)
  for mode in golden.names_under('output'):
    cases[mode] = functools.partial(_check_baseline, golden, mode)
  for mode in golden.names_under('gradsum'):
    cases[f'{mode}-grad'] = functools.partial(_check_baseline_sums, golden, mode)
  return cases


def _baseline(golden: Golden) -> SlotAttention:
  net = golden.config['Net']
  return SlotAttention(
    image_size=net['input_size'][1],
    num_slots=net['K'],
    zdim=net['z_size'],
    image_decoder=net['image_decoder'],
  )


@functools.cache
def _baseline_run(golden: Golden, mode: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """Results and gradients by the names of the file."""
  return _compute_baseline(golden, mode)


def _compute_baseline(
  golden: Golden, mode: str, moves: kinks.Moves = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
  model, image = _baseline(golden), networks.images(golden)
  params = kinks.move(networks.read_params(golden, model), moves)
  draw = networks.pattern(mode, len(image) * model.num_slots * model.zdim)
  results, grads = _baseline_compiled(model)(params, image, draw)
  return results, networks.named_gradients(model, grads)


@functools.cache
def _baseline_compiled(model: SlotAttention) -> Any:
  """Returns (params, image, draw) -> (results by the names of the file, gradient)."""

  def run(params, image, draw):
    def loss(params):
      batch = {'image': image}
      with noise(normal=networks.repeated(draw)), watched(Slots, _is_query) as seen:
        value, _ = model.loss(params, {}, batch, rng=RNG, step=jnp.int32(0), train=True)
        results = model.segment(params, {}, batch, RNG)
      queries = seen[0][1]['iteration']['attention']['to_q']['__call__']
      raw = jnp.split(params['slots']['init_slots'], 2)[1]
      shape = (len(image) * model.num_slots, model.zdim)
      return value, {
        'total_loss': value,
        'x_means': jnp.moveaxis(results.rgb[:, 0], -1, 2),
        'masks': results.log_masks[:, 0, :, None],
        'slots': results.slots[:, 0],
        'q': jnp.stack(queries),
        'init_slots_std': jnp.broadcast_to(deviation(raw), shape),
      }

    (_, results), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return results, grads

  return golden_files.quick_jit(run)


def _is_query(module: Any, method: str) -> bool:
  return module.name == 'to_q'


def _check_baseline(golden: Golden, mode: str) -> None:
  tolerance = lambda name: networks.LOSS if name == 'total_loss' else networks.ARRAY
  compare(_baseline_run(golden, mode)[0], golden.under(f'output/{mode}'), tolerance)


def _check_baseline_sums(golden: Golden, mode: str) -> None:
  stored = golden.under(f'gradsum/{mode}')
  forward.compare_sums(*_baseline_gradients(golden, mode), stored, mode)


def _check_baseline_gradient(golden: Golden) -> None:
  stored = golden.under('grad')
  forward.compare_gradients(*_baseline_gradients(golden, 'epsd'), stored, 'epsd')


def _baseline_gradients(golden: Golden, mode: str) -> tuple[forward.GradientsAt, list[str]]:
  def gradients_at(moves):
    results = _compute_baseline(golden, mode, moves) if moves else _baseline_run(golden, mode)
    return results[1]

  return gradients_at, kinks.bias_names(networks.read_params(golden, _baseline(golden)))
