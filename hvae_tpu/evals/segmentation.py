"""How well the slots of a model are the objects of its scenes, by the number of refinements."""

from collections.abc import Callable, Iterator
import itertools
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np
from PIL import Image

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.figures import images, slot_pictures
from hvae_tpu.metrics.rand_index import adjusted_rand_index

NEEDS = ('segment',)


def make(
  model: Any, batches: Callable[..., Iterator], num: int = 4, max_batches: int = 0
) -> Callable[..., dict[str, Any]]:
  """Scores of scenes whose records have `segmentation`.

  Args:
    num: scenes to show.
    max_batches: to be measured; 0: the whole view.

  Returns:
    `run(params, model_state, step, rng)`: means over the scenes of `ari` (foreground), `ari_all`
    (all pixels), `mse` (pixels in [0, 1]), and where the model has them `kl` and `nll`; the same of
    earlier results as `ari_0` (no refinement), `ari_1`, ...; `ari_std`, `mse_std`, `kl_std` over
    scenes; `num_examples`; and the picture `scenes`.
  """
  scores = scorer(model)

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, Any]:
    found, shown = [], []
    for i, batch in enumerate(itertools.islice(batches(), max_batches or None)):
      key = jax.random.fold_in(rng, i)
      numbers, panels = scores(params, model_state, batch, key, 0 if shown else num)
      found.append(numbers)
      shown += [panels] if panels is not None else []
    return {**summary(found), 'scenes': images.grid(shown[0])}

  return run


def scorer(model: Any) -> Callable[..., tuple[dict[str, np.ndarray], np.ndarray | None]]:
  """Returns `score(params, model_state, batch, rng, num)`.

  It gives numbers by name, [N, R] each, of the N pictures of a batch that are no padding and of the
  last R stages; and, if `num` is not 0, rows of pictures of the first ones.

  Raises:
    UserError: on use, where the records have no `segmentation`.
  """

  @jax.jit
  def segment(params, model_state, batch, rng):
    found = model.segment(params, model_state, batch, rng)
    masks = jnp.exp(found.log_masks)
    image = batch['image'].astype(jnp.float32) / 255
    whole = (masks[..., None] * found.rgb).sum(2)
    numbers = {'mse': jnp.square(whole - image[:, None]).mean((2, 3, 4))}
    if found.kl is not None:
      numbers |= {'kl': found.kl, 'nll': found.nll}
    return numbers, found.rgb[:, -1], masks

  def score(params, model_state, batch, rng, num):
    require_masks(batch)
    numbers, rgb, masks = segment(params, model_state, batch, rng)
    numbers, masks, kept = sharding.to_host((numbers, masks, batch['mask']))
    true = sharding.to_host(batch['segmentation'])[..., 0]
    owners = owners_of(masks, true.shape[-1])
    numbers = {name: values[kept] for name, values in numbers.items()}
    for name, foreground in (('ari', True), ('ari_all', False)):
      numbers[name] = np.array(
        [
          [adjusted_rand_index(ids, stage, foreground) for stage in stages]
          for ids, stages in zip(true[kept], owners[kept], strict=True)
        ]
      )
    # Only results that are refined, or could be; earlier layers do not paint.
    count = numbers['kl'].shape[1] if 'kl' in numbers else 1
    numbers = {name: values[:, -count:] for name, values in numbers.items()}
    panels = None
    if num:
      shown = (*sharding.to_host((batch['image'], rgb)), masks[:, -1])
      panels = slot_pictures.rows(*(array[kept][:num] for array in shown))
    return numbers, panels

  return score


def owners_of(masks: np.ndarray, size: int) -> np.ndarray:
  """Masks [..., K, H, W] -> slot of each pixel of pictures of `size` px, [..., size, size].

  Masks of another size are enlarged first, as EfficientMORL does for CLEVR.
  """
  if masks.shape[-1] != size:
    flat = masks.reshape(-1, *masks.shape[-2:])
    masks = enlarged(flat, size).reshape(*masks.shape[:-2], size, size)
  return masks.argmax(-3)


def enlarged(masks: np.ndarray, size: int) -> np.ndarray:
  """Float masks [N, H, W] -> [N, size, size], by Pillow's bicubic kernel."""
  resize = lambda mask: Image.fromarray(mask).resize((size, size), Image.Resampling.BICUBIC)
  return np.stack([np.asarray(resize(mask)) for mask in masks.astype(np.float32)])


def require_masks(batch: dict[str, Array]) -> None:
  """Raises UserError if the records of a batch do not say which object a pixel belongs to."""
  if 'segmentation' not in batch:
    raise UserError(
      "the batches have no segmentation, which scores of objects need; add 'segmentation' to "
      'config.data.fields, or choose a data set whose records have it with config.data.name'
    )


def summary(parts: list[dict[str, np.ndarray]]) -> dict[str, Any]:
  """Means and deviations over scenes of numbers [N, R] of batches; see `make`."""
  found = {}
  for name in parts[0]:
    values = np.concatenate([part[name] for part in parts]).astype(np.float64)
    found[name] = values[:, -1].mean()
    if name != 'nll':
      found[f'{name}_std'] = values[:, -1].std()
    if values.shape[1] > 1:
      found |= {f'{name}_{i}': column.mean() for i, column in enumerate(values.T)}
    count = len(values)
  return {**found, 'num_examples': count}
