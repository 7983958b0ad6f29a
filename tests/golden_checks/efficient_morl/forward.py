"""Forward passes and gradients of variants of a network, in every mode of noise."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hvae_tpu.models.efficient_morl import EfficientMORL, inference, objective
from hvae_tpu.models.efficient_morl.attention import Memory
from hvae_tpu.models.efficient_morl.encoder import Encoder
from hvae_tpu.models.efficient_morl.gaussians import deviation
from hvae_tpu.models.efficient_morl.network import Hierarchy, Prior
from tests.golden_checks.efficient_morl import networks
from tests.golden_checks.efficient_morl.networks import Cases
from tests.support import golden_files, kinks
from tests.support.golden_files import Golden, Tolerance, compare, differences, fail_with
from tests.support.tracing import noise, replaced, watched

# By the beginning of a name; the first that fits.
TOLERANCES = {
  'total_loss': networks.LOSS,
  'nll': networks.LOSS,
  'refine_loss': networks.LOSS,
  'kl': networks.KL,
  'refine_kl': networks.KL,
  'refine_dlamda': networks.REFINING,
  '': networks.ARRAY,
}


def forward_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  for variant in golden.names_under('output'):
    for mode in golden.names_under(f'output/{variant}'):
      cases[f'{variant}-{mode}'] = functools.partial(_check_outputs, golden, variant, mode)
  for variant in golden.names_under('gradsum'):
    for mode in golden.names_under(f'gradsum/{variant}'):
      cases[f'{variant}-{mode}-grad'] = functools.partial(_check_sums, golden, variant, mode)
  if golden.has('grad/*'):
    variant = next(iter(_variants(golden)))  # the network as it is described
    cases['grad'] = functools.partial(check_gradient, golden, golden, variant, 'epsd')
  return cases


def gradient_cases(golden: Golden) -> Cases:
  """Returns the check of a file of gradients that belong to another file."""
  c = golden.config
  of = golden.beside(c['of'])
  return {'grad': functools.partial(check_gradient, golden, of, c['variant'], c['eps'])}


def _variants(golden: Golden) -> list[str]:
  """Names of the variants: of the config, or of the results, where the first is the plain one."""
  if 'variants' in golden.config:
    return list(golden.config['variants'])
  return list(dict.fromkeys(['plain', *golden.names_under('output')]))


def settings(golden: Golden, variant: str) -> dict[str, Any]:
  """Returns the changes of a variant in the settings of the network, the loss and the state."""
  config = golden.config
  if 'variants' in config:
    return config['variants'][variant]
  if variant == 'plain':
    return {}
  assert variant == 'geco', f'the config tells nothing about {variant!r}'
  case = config['geco_case']
  return {
    'geco': case,
    'global_step': case['global_step'],
    'geco_state': {'C_ema': case['C_ema'], 'beta': case['beta']},
  }


def _model(golden: Golden, variant: str) -> EfficientMORL:
  """Returns our model of a variant.

  Variants that differ in traced numbers share one model, and one program. The number of refinements
  is that of the step, as far as it is below GECO's warm start.
  """
  changes = {name: settings(golden, name) for name in _variants(golden)}
  change = changes[variant]
  net = golden.config['Net'] | {k: v for k, v in change.items() if k in golden.config['Net']}
  most = max(c.get('refinement_iters', 0) for c in [golden.config['Net'], *changes.values()])
  # Before its warm start GECO has no effect, so those without it may have that of another variant.
  geco = [c['geco'] for c in (change, *changes.values()) if 'geco' in c]
  return networks.model_of(
    net,
    kl_beta=float(change.get('kl_beta', 1)),
    refinement_iters=most,
    refinement_curriculum=tuple((count - 1, count) for count in range(most + 1)),
    **(_geco_fields(geco[0]) if geco else {}),
  )


def _geco_fields(geco: Mapping[str, Any]) -> dict[str, Any]:
  return dict(
    geco_target=geco['target_per_dim'],
    geco_ema_alpha=geco['alpha'],
    geco_step_size_acceleration=float(geco['accel']),
  )


@functools.cache
def _compiled(model: EfficientMORL) -> Callable[..., Any]:
  """Returns (params, image, geco, step, draw) -> (results by the names of a file, gradient)."""

  def run(params, image, geco, step, draw):
    def loss(params):
      captured = {}

      def whole(*args):
        *args, record, last = args
        captured['pass'] = run_pass(*args, lambda *all: all, last)
        stages, steps = captured['pass'].records
        return captured['pass']._replace(records=jax.vmap(record)(stages, steps))

      run_pass = inference.run
      with (
        noise(normal=networks.repeated(draw)),
        replaced(inference, run=whole),
        watched(Hierarchy, _is_compared) as hierarchies,
        watched(Prior) as priors,
      ):
        state, batch = {'geco': geco}, {'image': image}
        rng = jax.random.key(0)
        total, (_, metrics) = model.loss(params, state, batch, rng=rng, step=step, train=True)
      ((_, inside),) = hierarchies
      # Further ones are those inside of refinements.
      priors = [p for p, _ in priors[: max(model.stochastic_layers - 1, 0)]]
      results = _named(model, captured['pass'], inside, priors, geco, step)
      out = model.decoder.apply({'params': params['decoder']}, captured['pass'].last.z)
      results['decoder_out_last'] = jnp.moveaxis(out, -1, 2).reshape(-1, 4, *out.shape[2:4])
      return total, results | {'total_loss': total, 'nll': metrics['nll'].mean()}

    (_, results), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return results, grads

  return golden_files.quick_jit(run)


def _is_compared(module: Any, method: str) -> bool:
  return isinstance(module, Encoder | Memory) or module.name == 'to_q'


def _named(model, passed, inside, priors, geco, step) -> dict[str, Any]:
  """Returns all results of a pass, by the names of the files; all refinements, taken or not."""
  (stages, steps), last, up = passed.records, passed.last, passed.bottom_up
  flat = lambda x: x.reshape(*x.shape[: x.ndim - 3], -1, x.shape[-1])
  both = lambda gaussian: flat(jnp.concatenate(gaussian, axis=-1))
  shape = flat(up.start.mean).shape
  if model.prior != 'bottom_up':
    priors = priors[::-1]
  prior_loc, prior_scale = [flat(p.mean) for p in priors], [flat(p.std) for p in priors]
  outermost = len(priors) if model.prior != 'bottom_up' else 0
  prior_loc.insert(outermost, jnp.zeros(shape))
  prior_scale.insert(outermost, jnp.ones(shape))
  side = model.image_size
  active = jnp.asarray(step) >= model.geco_warm_start
  mean_loss = functools.partial(
    objective.iteration_loss,
    geco=objective.Geco(**geco),
    kl_beta=model.kl_beta,
    constrained=active,
  )
  masks = lambda canvas: canvas.log_masks[:, :, None]
  means = lambda canvas: jnp.moveaxis(canvas.rgb, -1, 2)
  first = jax.tree.map(lambda s, end: jnp.concatenate([s, end[None]])[0], stages, last)
  keys, values = inside['memory']['__call__'][0]
  results = {
    'features': inside['encoder']['__call__'][0],
    'keys': keys,
    'values': values,
    'kl': last.kl.mean(),
    'kl_layers_per_example': passed.kl_per_layer,
    'nll_all': stages.nll,
    'nll_last': last.nll,
    'kl_all': stages.kl,
    'kl_last': last.kl,
    'refine_loss': mean_loss(stages.nll, stages.kl),
    'refine_lamda': both(stages.posterior),
    'refine_dlamda': both(steps.gradient),
    'refine_delta': both(steps.change),
    'refine_hidden': flat(steps.h)[:, None],
    'deltas': jnp.linalg.norm(both(steps.change), axis=-1).mean(-1),
    'final_lamda': both(last.posterior),
    'init_loc': flat(up.start.mean),
    'init_sp': flat(up.start.raw),
    'means_first': means(first.canvas),
    'masks_first': masks(first.canvas),
    'means_last': means(last.canvas),
    'masks_last': masks(last.canvas),
  }
  if up.posteriors:
    raw = jnp.stack([flat(q.raw) for q in up.posteriors])
    results |= {
      'prior_loc': jnp.stack(prior_loc),
      'prior_scale': jnp.stack(prior_scale),
      'posterior_loc': jnp.stack([flat(q.mean) for q in up.posteriors]),
      'posterior_sp': raw,
      'posterior_std': deviation(raw),
      'attn': jnp.stack(up.attention).reshape(-1, *up.start.mean.shape[:2], 1, side, side),
      'q': jnp.stack(inside['layer']['attention']['to_q']['__call__']),
    }
  return results


@functools.cache
def _results(golden: Golden, variant: str, mode: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns results by the names of the file, and gradients by the reference's names."""
  return _compute(golden, variant, mode)


def _compute(
  golden: Golden, variant: str, mode: str, moves: kinks.Moves = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
  change, model = settings(golden, variant), _model(golden, variant)
  count = change.get('refinement_iters', golden.config['Net']['refinement_iters'])
  update = change.get('global_step', count - 1)
  stored = change.get('geco_state', {'C_ema': 0.0, 'beta': 0.55})
  geco = {'c_ema': np.float32(stored['C_ema']), 'beta': np.float32(stored['beta'])}
  image, params = networks.images(golden), networks.read_params(golden, model, variant)
  params = kinks.move(params, moves)
  draw = networks.pattern(mode, len(image) * model.num_slots * model.zdim)
  results, grads = _compiled(model)(params, image, geco, np.int32(update), draw)
  taken = {}
  for name, value in results.items():
    is_padded = name.startswith('refine_') or name in ('deltas', 'nll_all', 'kl_all')
    taken[name] = value[:count] if is_padded else value
  taken['nll_per_example'] = np.stack([*taken['nll_all'], results['nll_last']])
  taken['refine_kl_per_example'] = np.stack([*taken['kl_all'], results['kl_last']])[1:]
  return taken, networks.named_gradients(model, grads)


def _check_outputs(golden: Golden, variant: str, mode: str) -> None:
  results, _ = _results(golden, variant, mode)
  compare(results, golden.under(f'output/{variant}/{mode}'), _tolerance)


def _tolerance(name: str) -> Tolerance:
  return next(TOLERANCES[start] for start in TOLERANCES if name.startswith(start))


def _check_sums(golden: Golden, variant: str, mode: str) -> None:
  """Checks norm, sum and first elements of every gradient."""
  stored = golden.under(f'gradsum/{variant}/{mode}')
  compare_sums(_gradients(golden, variant, mode), _biases(golden, variant), stored, mode)


Gradients = Mapping[str, np.ndarray]
GradientsAt = Callable[[kinks.Moves], Gradients]


def _gradients(golden: Golden, variant: str, mode: str) -> GradientsAt:
  def gradients_at(moves):
    results = _compute(golden, variant, mode, moves) if moves else _results(golden, variant, mode)
    return results[1]

  return gradients_at


def _biases(golden: Golden, variant: str) -> list[str]:
  return kinks.bias_names(networks.read_params(golden, _model(golden, variant), variant))


def compare_sums(
  gradients_at: GradientsAt, biases: list[str], stored: Gradients, mode: str
) -> None:
  """Compares gradients with [norm, sum, first 64 elements] of the reference's.

  Args:
    gradients_at: moves of biases -> gradients; see `kinks`.
    biases: names of the biases to move.
    stored: reference's; parameters without a gradient are absent.
    mode: noise mode.
  """
  for name, grad in gradients_at(()).items():
    assert name in stored or not grad.any(), f'{name} has a gradient here only'
  expected = {name: value for name, value in stored.items() if networks.meaningful(mode)(name)}
  assert expected, 'nothing to compare'

  def differ(grads):
    texts = {name: _sums_differ(name, grads[name], value) for name, value in expected.items()}
    return {name: text for name, text in texts.items() if text}

  fail_with(kinks.real_differences(differ, gradients_at, biases), len(expected))


def _sums_differ(name: str, grad: np.ndarray, stored: np.ndarray) -> str:
  """Returns how a gradient differs from [norm, sum, first elements]; '' if it agrees."""
  grad = networks.masked_bias(name, grad).astype(np.float64).reshape(-1)
  first = networks.masked_bias(name, stored[2:])
  scale = max(np.abs(grad).max(), np.abs(first).max())
  if not scale:
    return '' if stored[0] == 0 else 'no gradient here'
  error = np.abs(grad[: len(first)] - first).max() / scale
  norm = abs(np.linalg.norm(grad) - stored[0]) / max(stored[0], np.finfo(float).tiny)
  # The errors of the elements are independent.
  total = abs(grad.sum() - stored[1]) / (scale * np.sqrt(grad.size)) if len(first) > 3 else 0
  if all(value <= networks.GRADIENT.of_max for value in (error, norm, total)):  # NaN is not
    return ''
  return f'elements {error:.1e}, norm {norm:.1e}, sum {total:.1e}'


def check_gradient(golden: Golden, of: Golden, variant: str, mode: str) -> None:
  """Checks every element of the gradients in `golden`."""
  stored = golden.under('grad')
  compare_gradients(_gradients(of, variant, mode), _biases(of, variant), stored, mode)


def compare_gradients(
  gradients_at: GradientsAt, biases: list[str], stored: Gradients, mode: str
) -> None:
  """Compares every element of gradients; see `compare_sums` for the arguments."""
  names = [name for name in stored if networks.meaningful(mode)(name)]
  masked = lambda tree: {name: networks.masked_bias(name, tree[name]) for name in names}
  differ = lambda grads: differences(masked(grads), masked(stored), lambda _: networks.GRADIENT)
  fail_with(kinks.real_differences(differ, gradients_at, biases), len(names))
