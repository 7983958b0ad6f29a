"""The scores of papers on CLEVRTEX: overlaps of objects and slots, matched one to one."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.evals import averaging, segmentation
from hvae_tpu.metrics import matching

NEEDS = ('segment',)


def make(model: Any, batches: Callable[..., Iterator]) -> Callable[..., dict[str, float]]:
  """Returns `run(params, model_state, step, rng)`: means over a view of `matching.texture_scores`.

  Raises:
    UserError: on use, where the records have no `segmentation`.
  """

  @jax.jit
  def segment(params, model_state, batch, rng):
    segments = model.segment(params, model_state, batch, rng)
    masks, rgb = jnp.exp(segments.log_masks[:, -1]), segments.rgb[:, -1]
    return masks, (masks[..., None] * rgb).sum(1)

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, float]:
    def results() -> Iterator[tuple]:
      for i, batch in enumerate(batches()):
        fields = segmentation.scene_fields(batch)
        yield *segment(params, model_state, batch, jax.random.fold_in(rng, i)), fields

    rows = []
    for masks, painted, fields in averaging.on_host(results(), ahead=1):
      true = fields['segmentation'][..., 0]
      owners = segmentation.owners_of(masks, true.shape[-1])
      scenes = zip(true, owners, fields['image'] / 255, painted, fields['mask'], strict=True)
      for ids, slots, image, reconstruction, is_example in scenes:
        if is_example:
          row = matching.texture_scores(ids, slots, masks.shape[1], image, reconstruction)
          rows.append(row)
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return {**means, 'num_examples': len(rows)}

  return run
