"""Segmentation scores (ARI, MSE, KL) of a model's slots after each refinement step."""

from collections.abc import Callable, Iterator
import dataclasses
import itertools
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np
from PIL import Image

from hvae_tpu.errors import UserError
from hvae_tpu.evals import averaging
from hvae_tpu.figures import images, slot_pictures
from hvae_tpu.metrics.rand_index import adjusted_rand_index
from hvae_tpu.settings import setting

NEEDS = ('segment',)
Numbers = dict[str, np.ndarray]  # by name, [N, R]: N scenes, the last R stages


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of evaluation `segmentation`."""

  num: int = setting(4, least=1)  # scenes shown
  max_batches: int = setting(0, least=0)  # batches measured; 0: the whole view


def make(
  model: Any,
  batches: Callable[..., Iterator],
  options: Options = Options(),
  where: str = 'config.evals.segmentation',
) -> Callable[..., dict[str, Any]]:
  """Returns the evaluation of scenes whose records have `segmentation`.

  Returns:
    `run(params, model_state, step, rng)`: means over the scenes of `ari` (foreground), `ari_all`
    (all pixels), `mse` (pixels in [0, 1]), and where the model has them `kl` and `nll`; the same of
    earlier results as `ari_0` (no refinement), `ari_1`, ...; `ari_std`, `mse_std`, `kl_std` over
    scenes; `num_examples`; and the picture `scenes`.

  Raises:
    UserError: on use, where the records have no `segmentation`.
  """
  segment = program(model)

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, Any]:
    def results() -> Iterator[tuple]:
      for i, batch in enumerate(itertools.islice(batches(), options.max_batches or None)):
        fields = scene_fields(batch)
        key = jax.random.fold_in(rng, i)
        numbers, rgb, masks = segment(params, model_state, batch, key)
        # The pictures of the first batch are shown; those of the others stay on the devices.
        yield numbers, masks, fields, rgb if i == 0 else None

    parts, scenes = [], None
    for numbers, masks, fields, rgb in averaging.on_host(results(), ahead=1):
      parts.append(scores(numbers, masks, fields))
      if rgb is not None:
        mask = fields['mask']
        shown = (array[mask][: options.num] for array in (fields['image'], rgb, masks[:, -1]))
        scenes = images.grid(slot_pictures.rows(*shown))
    return {**summary(parts), 'scenes': scenes}

  return run


def program(model: Any) -> Callable[..., tuple[dict[str, Array], Array, Array]]:
  """Returns the jitted (params, model_state, batch, rng) -> (numbers, rgb, masks) of one batch.

  Numbers are by name, [B, T] or [B, R] (see `protocol.Segments`); rgb [B, K, H, W, 3] is of the
  last stage; masks [B, T, K, H, W] are probabilities.
  """

  @jax.jit
  def segment(params, model_state, batch, rng):
    segments = model.segment(params, model_state, batch, rng)
    masks = jnp.exp(segments.log_masks)
    image = batch['image'].astype(jnp.float32) / 255
    whole = (masks[..., None] * segments.rgb).sum(2)
    numbers = {'mse': jnp.square(whole - image[:, None]).mean((2, 3, 4))}
    if segments.kl is not None:
      numbers |= {'kl': segments.kl, 'nll': segments.nll}
    return numbers, segments.rgb[:, -1], masks

  return segment


def scores(numbers: Numbers, masks: np.ndarray, fields: dict[str, np.ndarray]) -> Numbers:
  """Adds `ari` and `ari_all` to the numbers of a batch; see `program`.

  Args:
    numbers, masks: results of `program`.
    fields: result of `scene_fields`.

  Returns:
    [N, R] each, of the N scenes that are no padding.
  """
  mask, true = fields['mask'], fields['segmentation'][..., 0]
  owners = owners_of(masks, true.shape[-1])
  numbers = {name: values[mask] for name, values in numbers.items()}
  for name, foreground in (('ari', True), ('ari_all', False)):
    numbers[name] = np.array(
      [
        [adjusted_rand_index(ids, stage, foreground) for stage in stages]
        for ids, stages in zip(true[mask], owners[mask], strict=True)
      ]
    )
  # Only results that are refined, or could be; earlier layers do not paint.
  count = numbers['kl'].shape[1] if 'kl' in numbers else 1
  return {name: values[:, -count:] for name, values in numbers.items()}


def owners_of(masks: np.ndarray, size: int) -> np.ndarray:
  """Returns the slot of each pixel, [..., size, size], of masks [..., K, H, W].

  Masks of another size are enlarged first, as EfficientMORL does for CLEVR.
  """
  if masks.shape[-1] != size:
    flat = masks.reshape(-1, *masks.shape[-2:])
    masks = enlarged(flat, size).reshape(*masks.shape[:-2], size, size)
  return masks.argmax(-3)


def enlarged(masks: np.ndarray, size: int) -> np.ndarray:
  """Enlarges float masks [N, H, W] to [N, size, size], by Pillow's bicubic kernel."""
  resize = lambda mask: Image.fromarray(mask).resize((size, size), Image.Resampling.BICUBIC)
  return np.stack([np.asarray(resize(mask)) for mask in masks.astype(np.float32)])


def require_masks(batch: dict[str, Array]) -> None:
  """Raises UserError if the records of a batch do not say which object a pixel belongs to."""
  if 'segmentation' not in batch:
    raise UserError(
      "the batches have no segmentation, which scores of objects need; add 'segmentation' to "
      'config.data.fields, or choose a data set whose records have it with config.data.name'
    )


def scene_fields(batch: dict[str, Array]) -> dict[str, Array]:
  """Returns the fields `image`, `segmentation` and `mask` of a batch; see `require_masks`."""
  require_masks(batch)
  return {name: batch[name] for name in ('image', 'segmentation', 'mask')}


def summary(parts: list[Numbers]) -> dict[str, Any]:
  """Computes means and deviations over scenes of the numbers [N, R] of batches; see `make`."""
  results = {}
  for name in parts[0]:
    values = np.concatenate([part[name] for part in parts]).astype(np.float64)
    results[name] = values[:, -1].mean()
    if name != 'nll':
      results[f'{name}_std'] = values[:, -1].std()
    if values.shape[1] > 1:
      results |= {f'{name}_{i}': column.mean() for i, column in enumerate(values.T)}
    count = len(values)
  return {**results, 'num_examples': count}
