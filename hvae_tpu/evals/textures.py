"""The scores of papers on CLEVRTEX: overlaps of objects and slots, matched one to one."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.evals import segmentation
from hvae_tpu.metrics import matching

NEEDS = ('segment',)


def make(model: Any, batches: Callable[..., Iterator]) -> Callable[..., dict[str, float]]:
  """Returns `run(params, model_state, step, rng)`: means over a view of `matching.texture_scores`.

  Raises:
    UserError: on use, where the records have no `segmentation`.
  """

  @jax.jit
  def segment(params, model_state, batch, rng):
    found = model.segment(params, model_state, batch, rng)
    masks, rgb = jnp.exp(found.log_masks[:, -1]), found.rgb[:, -1]
    return masks, (masks[..., None] * rgb).sum(1)

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, float]:
    rows = []
    for i, batch in enumerate(batches()):
      segmentation.require_masks(batch)
      masks, painted = segment(params, model_state, batch, jax.random.fold_in(rng, i))
      masks, painted, batch = sharding.to_host((masks, painted, batch))
      true = batch['segmentation'][..., 0]
      owners = segmentation.owners_of(masks, true.shape[-1])
      scenes = zip(true, owners, batch['image'] / 255, painted, batch['mask'], strict=True)
      for ids, slots, image, reconstruction, is_example in scenes:
        if is_example:
          row = matching.texture_scores(ids, slots, masks.shape[1], image, reconstruction)
          rows.append(row)
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return {**means, 'num_examples': len(rows)}

  return run
