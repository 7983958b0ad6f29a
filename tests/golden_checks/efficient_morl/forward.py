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
from tests.support import golden_files
from tests.support.golden_files import Golden, Tolerance, compare
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
      check = functools.partial(_check_sums, golden, variant, mode)
      cases[f'{variant}-{mode}-grad'] = check
  if golden.names_under('grad'):
    cases['grad'] = functools.partial(check_gradient, golden, golden, 'plain', 'epsd')
  return cases


def gradient_cases(golden: Golden) -> Cases:
  """A file of gradients that belong to another one."""
  c = golden.config
  of = golden.beside(c['of'])
  return {'grad': functools.partial(check_gradient, golden, of, c['variant'], c['eps'])}


def settings(golden: Golden, variant: str) -> dict[str, Any]:
  """What a variant changes in the settings of the network, of the loss and of the state."""
  config = golden.config
  if 'variants' in config:
    return config['variants'][variant]
  if variant == 'plain':
    return {}
  case = config['geco_case']
  return {
    'geco': case,
    'global_step': case['global_step'],
    'geco_state': {'C_ema': case['C_ema'], 'beta': case['beta']},
  }


def _model(golden: Golden, variant: str) -> EfficientMORL:
  """Of a variant. Those that differ in numbers that are traced share one model, and one program.

  The number of refinements is that of the step, as far as it is below GECO's warm start.
  """
  change = settings(golden, variant)
  net = golden.config['Net'] | {k: v for k, v in change.items() if k in golden.config['Net']}
  most, other = golden.config['Net']['refinement_iters'], golden.names_under('output')
  geco = next(s['geco'] for name in other if 'geco' in (s := settings(golden, name)))
  return networks.model_of(
    net,
    kl_beta=float(change.get('kl_beta', 1)),
    refinement_iters=most,
    refinement_curriculum=tuple((count - 1, count) for count in range(most + 1)),
    geco_target=geco['target_per_dim'],
    geco_ema_alpha=geco['alpha'],
    geco_step_size_acceleration=float(geco['accel']),
  )


@functools.cache
def _compiled(model: EfficientMORL) -> Callable[..., Any]:
  """(params, image, geco, step, draw) -> what names of a file stand for, and the gradient."""

  def run(params, image, geco, step, draw):
    def loss(params):
      kept = {}

      def whole(*args):
        *args, keep, last = args
        kept['pass'] = run_pass(*args, lambda *all: all, last)
        stages, steps = kept['pass'].kept
        return kept['pass']._replace(kept=jax.vmap(keep)(stages, steps))

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
      found = _named(model, kept['pass'], inside, priors, geco, step)
      out = model.form.decoder.apply({'params': params['decoder']}, kept['pass'].last.z)
      found['decoder_out_last'] = jnp.moveaxis(out, -1, 2).reshape(-1, 4, *out.shape[2:4])
      return total, found | {'total_loss': total, 'nll': metrics['nll'].mean()}

    (_, found), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return found, grads

  return golden_files.quick_jit(run)


def _is_compared(module: Any, method: str) -> bool:
  return isinstance(module, Encoder | Memory) or module.name == 'to_q'


def _named(model, passed, inside, priors, geco, step) -> dict[str, Any]:
  """Everything a pass computes, by the names of the files; all refinements, taken or not."""
  (stages, steps), last, up = passed.kept, passed.last, passed.bottom_up
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
  found = {
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
    'means_first': means(first.painted),
    'masks_first': masks(first.painted),
    'means_last': means(last.painted),
    'masks_last': masks(last.painted),
  }
  if up.posteriors:
    raw = jnp.stack([flat(q.raw) for q in up.posteriors])
    found |= {
      'prior_loc': jnp.stack(prior_loc),
      'prior_scale': jnp.stack(prior_scale),
      'posterior_loc': jnp.stack([flat(q.mean) for q in up.posteriors]),
      'posterior_sp': raw,
      'posterior_std': deviation(raw),
      'attn': jnp.stack(up.attention).reshape(-1, *up.start.mean.shape[:2], 1, side, side),
      'q': jnp.stack(inside['layer']['attention']['to_q']['__call__']),
    }
  return found


@functools.cache
def _results(golden: Golden, variant: str, mode: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """What the file names, and gradients by the reference's names."""
  change, model = settings(golden, variant), _model(golden, variant)
  count = change.get('refinement_iters', golden.config['Net']['refinement_iters'])
  step = change.get('global_step', count - 1)
  stored = change.get('geco_state', {'C_ema': 0.0, 'beta': 0.55})
  geco = {'c_ema': np.float32(stored['C_ema']), 'beta': np.float32(stored['beta'])}
  image, params = networks.images(golden), networks.read_params(golden, model, variant)
  draw = networks.pattern(mode, len(image) * model.num_slots * model.zdim)
  found, grads = _compiled(model)(params, image, geco, np.int32(step), draw)
  taken = {}
  for name, value in found.items():
    is_padded = name.startswith('refine_') or name in ('deltas', 'nll_all', 'kl_all')
    taken[name] = value[:count] if is_padded else value
  taken['nll_per_example'] = np.stack([*taken['nll_all'], found['nll_last']])
  taken['refine_kl_per_example'] = np.stack([*taken['kl_all'], found['kl_last']])[1:]
  return taken, networks.named_gradients(model, grads)


def _check_outputs(golden: Golden, variant: str, mode: str) -> None:
  found, _ = _results(golden, variant, mode)
  compare(found, golden.under(f'output/{variant}/{mode}'), _tolerance)


def _tolerance(name: str) -> Tolerance:
  return next(TOLERANCES[start] for start in TOLERANCES if name.startswith(start))


def _check_sums(golden: Golden, variant: str, mode: str) -> None:
  """Norm, sum and first elements of every gradient."""
  _, grads = _results(golden, variant, mode)
  compare_sums(grads, golden.under(f'gradsum/{variant}/{mode}'), mode, _share(variant, mode))


def _share(variant: str, mode: str) -> float:
  # An input of a ReLU lies within rounding of zero.
  return 5e-3 if (variant, mode) == ('L1', 'epsd') else 1e-4


def compare_sums(
  grads: Mapping[str, np.ndarray], stored: Mapping[str, np.ndarray], mode: str, share: float
) -> None:
  """Gradients, and [norm, sum, first 64 elements] of the reference's, absent where it has none."""
  for name, grad in grads.items():
    assert name in stored or not grad.any(), f'{name} has a gradient here only'
  wanted = {name: value for name, value in stored.items() if networks.meaningful(mode)(name)}
  lines = []
  for name, value in wanted.items():
    grad = networks.masked_bias(name, grads[name]).astype(np.float64).reshape(-1)
    first = networks.masked_bias(name, value[2:])
    scale = max(np.abs(grad).max(), np.abs(first).max())
    if not scale:  # no gradient, here and there
      assert value[0] == 0, f'{name} has no gradient here'
      continue
    error = np.abs(grad[: len(first)] - first).max() / scale
    norm = abs(np.linalg.norm(grad) - value[0]) / max(value[0], np.finfo(float).tiny)
    # The errors of the elements are independent.
    total = abs(grad.sum() - value[1]) / (scale * np.sqrt(grad.size)) if len(first) > 3 else 0
    if not max(error, norm, total) <= share:  # NaN is no agreement, and comes first
      lines.append(f'{name}: elements {error:.1e}, norm {norm:.1e}, sum {total:.1e} of {share}')
  assert wanted and not lines, '\n'.join(lines)


def check_gradient(golden: Golden, of: Golden, variant: str, mode: str) -> None:
  """Every element of the gradients in `golden`."""
  grads = _results(of, variant, mode)[1]
  compare_gradients(grads, golden.under('grad'), mode, _share(variant, mode))


def compare_gradients(
  grads: Mapping[str, np.ndarray], stored: Mapping[str, np.ndarray], mode: str, share: float
) -> None:
  """Gradients, within `share` of the largest element of each."""
  names = [name for name in stored if networks.meaningful(mode)(name)]
  masked = lambda tree: {name: networks.masked_bias(name, tree[name]) for name in names}
  compare(masked(grads), masked(stored), lambda _: Tolerance(0, 0, of_max=share))
