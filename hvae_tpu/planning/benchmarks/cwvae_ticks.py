"""Levels of a Clockwork VAE computed tick by tick, as in the paper; loops hold everything.

It computes the same function of the same parameters as `models.cwvae.network.Net.unroll` and is
compared with it in speed and in values.
"""

from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.cwvae import CWVAE
from hvae_tpu.models.cwvae.cells import SHIFT, LevelOutputs
from hvae_tpu.models.cwvae.recurrence import RSSMConfig, State
from hvae_tpu.nn import distributions

Sides = tuple[Array, Array]  # means and deviations


def tick(
  params: Any, c: RSSMConfig, context: Array, features: Array | None, state: State, noise: Array
) -> tuple[State, Sides, Sides]:
  """Computes one tick of a level: next state, prior and posterior; arrays are [B, n]."""
  dense = lambda name, x: c.product(x, params[name]['kernel']) + params[name]['bias']

  def head(name, x):
    mean, std = (params[f'{name}_head'][part] for part in ('mean', 'std'))
    raw = c.product(x + SHIFT, std['kernel']) + std['bias']
    return c.product(x, mean['kernel']) + mean['bias'], nn.softplus(raw) + c.min_std

  gru = params['gru']
  x = nn.relu(dense('prior_input', jnp.concatenate([state.sample, context], -1)))
  gates = zip(gru['input_kernel'], gru['input_bias'], strict=True)
  xr, xz, xn = (c.product(x, k) + b for k, b in gates)
  hr, hz, hn = (c.product(state.det, k) for k in gru['recurrent_kernel'])
  r, z = nn.sigmoid(xr + hr), nn.sigmoid(xz + hz)
  det = (1 - z) * jnp.tanh(xn + r * (hn + gru['new_bias'])) + z * state.det
  prior = posterior = head('prior', nn.relu(dense('prior_hidden', det)))
  if features is not None:
    h = nn.relu(dense('posterior_input', jnp.concatenate([det, features], -1)))
    posterior = head('posterior', nn.relu(dense('posterior_hidden', h)))
  return State(posterior[0] + posterior[1] * noise, det), prior, posterior


def unroll(
  model: CWVAE, params: Any, features: list[Array], state: list[State], rng: Array
) -> list[LevelOutputs]:
  """Unrolls all levels over `features` [B, T, E] of each, bottom level first; noise as in `Net`."""
  levels, repeats = [None] * model.levels, features[-1].shape[1]
  above = jnp.zeros((len(features[0]), 1, model.cell_stoch_size + model.cell_deter_size))
  for level in reversed(range(model.levels)):
    context = above.repeat(repeats, axis=1)[:, : features[level].shape[1]]
    levels[level] = _level(
      params[f'cells_{level}'],
      model.rssm,
      (context, features[level]),
      state[level],
      jax.random.fold_in(rng, level),
    )
    above, repeats = levels[level].output, model.tmp_abs_factor
  return levels


def _level(
  params: Any, c: RSSMConfig, inputs: tuple[Array, Array], state: State, rng: Array
) -> LevelOutputs:
  def body(state, now):
    number, context, features = now
    noise = distributions.normal(jax.random.fold_in(rng, number), state.sample.shape)
    state, *sides = tick(params, c, context, features, state, noise)
    return state, (state, sides)

  context, features = (jnp.swapaxes(v, 0, 1) for v in inputs)
  outputs = jax.lax.scan(body, state, (jnp.arange(len(context)), context, features))[1]
  (sample, det), sides = jax.tree.map(lambda v: jnp.swapaxes(v, 0, 1), outputs)
  prior, posterior = (distributions.Normal(mean, jnp.log(std)) for mean, std in sides)
  return LevelOutputs(prior, posterior, sample, det)
