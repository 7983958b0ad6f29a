"""Parts alone: decoders, recurrences, scales, likelihoods, divergences, the baseline's pass."""

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
from tests.support import golden_files
from tests.support.golden_files import Golden, Tolerance, compare
from tests.support.tracing import noise, watched

GRADIENT = Tolerance(0, 0, of_max=1e-4)
# The stored values are 1.02e-4 of their maximum off a computation in float64: sums over 9216 pixels
# behind five layers.
GRADIENT_OF_BIG = Tolerance(0, 0, of_max=1.5e-4)
RNG = jax.random.key(0)


def decoder_cases(golden: Golden) -> Cases:
  return {name: functools.partial(_check_decoder, golden, name) for name in golden.config['sizes']}


def _check_decoder(golden: Golden, name: str) -> None:
  _, side, _ = golden.config['sizes'][name]
  model = SlotAttention(image_size=side, zdim=golden.config['z_size'], image_decoder=name)
  prefix = 'image_decoder.'
  entries = [e for e in efficient_morl.PYTORCH.entries(model) if e.key.startswith(prefix)]
  stored = {f'{prefix}{key}': value for key, value in golden.under(f'param/{name}').items()}
  params = tables.import_params(entries, stored)
  decoder, z = Decoder(name, side, jnp.float32), golden[f'input/{name}/z']

  def total(params, z):
    out = decoder.apply({'params': params['decoder']}, z)
    rgb, logits = jax.nn.sigmoid(out[..., :3]), out[..., 3]
    return rgb.sum() + 0.1 * jnp.square(logits).sum(), (rgb, logits)

  run = golden_files.quick_jit(jax.grad(total, argnums=(0, 1), has_aux=True))
  (by_params, by_z), (rgb, logits) = run(params, z)
  expected = golden.under(f'output/{name}')
  stride = -(-side // expected['rgb'].shape[-1])
  found = {
    'rgb': rgb.transpose(0, 3, 1, 2)[..., ::stride, ::stride],
    'mask_logits': logits[..., ::stride, ::stride],
    'rgb_sum': rgb.sum((1, 2)),
    'mask_sum': logits.sum((1, 2)),
  }
  compare(found, expected, lambda _: networks.ARRAY)
  gradients = tables.export_params(entries, by_params)
  gradients = {key.removeprefix(prefix): value for key, value in gradients.items()} | {'z': by_z}
  tolerance = GRADIENT_OF_BIG if name == 'big' else GRADIENT
  compare(gradients, golden.under(f'grad/{name}'), lambda _: tolerance)


def component_cases(golden: Golden) -> Cases:
  checks = (_check_positions, _check_scale, _check_dual, _check_gru, _check_kl, _check_canvas)
  cases = {check.__name__.removeprefix('_check_'): check for check in checks}
  found: Cases = {name: functools.partial(check, golden) for name, check in cases.items()}
  for sd in golden.names_under('output/lik'):
    if sd.startswith('sd'):
      found[f'likelihood_{sd}'] = functools.partial(_check_likelihood, golden, sd)
  return found


def _check_positions(golden: Golden) -> None:
  found = {key: value for key, value in golden.under('output').items() if key.startswith('pos_')}
  ours = {key: positions(value.shape[1])[None] for key, value in found.items()}
  compare(ours, found, lambda _: Tolerance(0, 1e-6))


def _check_scale(golden: Golden) -> None:
  raw = golden['input/softplus_raw']
  std, slope = golden_files.quick_jit(jax.vmap(jax.value_and_grad(deviation)))(raw)
  found = {'std': std, 'slope': slope}
  expected = {'std': golden['output/std'], 'slope': golden['grad/softplus_raw']}
  compare(found, expected, lambda _: networks.ARRAY)


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
  found = {key: params[path].T for path, key in keys.items()} | {'x': by_x[None], 'h': by_h}
  compare(found, golden.under('grad/dual_gru'), lambda _: GRADIENT)


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
  found = {'p_q': p.kl(q).sum(-1), 'p_std_normal': p.kl().sum(-1)}
  compare(found, golden.under('output/kl'), lambda _: networks.ARRAY)


def _canvas(rgb: Any, logits: Any) -> objective.Canvas:
  """What decoders made that gave these, [B, K, C, H, W] each."""
  colours = jax.nn.sigmoid(jnp.moveaxis(rgb, 2, -1))
  return objective.Canvas(colours, jax.nn.log_softmax(logits[:, :, 0], axis=1))


def _logits(golden: Golden) -> tuple[Any, Any]:
  return tuple(golden[f'input/lik/{name}_logits'] for name in ('rgb', 'mask'))


def _check_canvas(golden: Golden) -> None:
  painted = _canvas(*_logits(golden))
  found = {
    'mean_image': painted.mean.transpose(0, 3, 1, 2),
    'mask_logprobs': painted.log_masks[:, :, None],
  }
  expected = {key: golden[f'output/lik/{key}'] for key in found}
  compare(found, expected, lambda _: networks.ARRAY)


def _check_likelihood(golden: Golden, name: str) -> None:
  log_scale = float(np.log(np.float32(name.removeprefix('sd'))))
  x = networks.images(golden, 'input/lik/image_u8_nchw') / np.float32(255)
  for theirs, ours in (('gmm', 'mixture'), ('gaussian', 'gaussian')):

    def total(logits, nll_of=objective.LIKELIHOODS[ours]):
      nll = nll_of(_canvas(*logits), x, log_scale)
      return nll.sum(), nll

    grad, nll = golden_files.quick_jit(jax.grad(total, has_aux=True))(_logits(golden))
    expected = golden[f'output/lik/{name}/{theirs}_nll']
    compare({'nll': nll}, {'nll': expected}, lambda _: networks.ARRAY)
    found = dict(zip(('rgb_logits', 'mask_logits'), grad, strict=True))
    compare(found, golden.under(f'grad/lik/{name}/{theirs}'), lambda _: GRADIENT)


def baseline_cases(golden: Golden) -> Cases:
  cases: Cases = {'grad': functools.partial(_check_baseline_gradient, golden)}
  for mode in golden.names_under('output'):
    cases[mode] = functools.partial(_check_baseline, golden, mode)
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
  model, image = _baseline(golden), networks.images(golden)
  draw = networks.pattern(mode, len(image) * model.num_slots * model.zdim)
  found, grads = _baseline_compiled(model)(networks.read_params(golden, model), image, draw)
  return found, networks.named_gradients(model, grads)


@functools.cache
def _baseline_compiled(model: SlotAttention) -> Any:
  """(params, image, draw) -> what the names of the file stand for, and the gradient."""

  def run(params, image, draw):
    def loss(params):
      batch = {'image': image}
      with noise(normal=networks.repeated(draw)), watched(Slots, _is_query) as seen:
        value, _ = model.loss(params, {}, batch, rng=RNG, step=jnp.int32(0), train=True)
        found = model.segment(params, {}, batch, RNG)
      queries = seen[0][1]['iteration']['attention']['to_q']['__call__']
      raw = jnp.split(params['slots']['init_slots'], 2)[1]
      shape = (len(image) * model.num_slots, model.zdim)
      return value, {
        'total_loss': value,
        'x_means': jnp.moveaxis(found.rgb[:, 0], -1, 2),
        'masks': found.log_masks[:, 0, :, None],
        'slots': found.slots[:, 0],
        'q': jnp.stack(queries),
        'init_slots_std': jnp.broadcast_to(deviation(raw), shape),
      }

    (_, found), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return found, grads

  return golden_files.quick_jit(run)


def _is_query(module: Any, method: str) -> bool:
  return module.name == 'to_q'


def _check_baseline(golden: Golden, mode: str) -> None:
  tolerance = lambda name: networks.LOSS if name == 'total_loss' else networks.ARRAY
  compare(_baseline_run(golden, mode)[0], golden.under(f'output/{mode}'), tolerance)


def _check_baseline_sums(golden: Golden, mode: str) -> None:
  grads = _baseline_run(golden, mode)[1]
  forward.compare_sums(grads, golden.under(f'gradsum/{mode}'), mode, 1e-4)


def _check_baseline_gradient(golden: Golden) -> None:
  forward.compare_gradients(_baseline_run(golden, 'epsd')[1], golden.under('grad'), 'epsd', 1e-4)
