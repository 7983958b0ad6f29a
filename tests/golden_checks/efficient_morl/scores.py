"""Scores of segmentations and of codes, evaluations of a model, the preparation of pictures."""

import functools
import math
import re
from typing import Any

import jax
import numpy as np

from data_prep.datasets import demo_tetrominoes
from data_prep.raw.preparation import Preparation
from hvae_tpu.evals import scene_records, segmentation, traversals
from hvae_tpu.figures.images import framed_row
from hvae_tpu.metrics import dci, matching
from hvae_tpu.metrics.rand_index import adjusted_rand_index
from hvae_tpu.models.efficient_morl import EfficientMORL, objective
from tests.golden_checks.efficient_morl import networks
from tests.golden_checks.efficient_morl.networks import Cases
from tests.support import golden_files
from tests.support.golden_files import EXACT, Golden, Tolerance, compare
from tests.support.tracing import noise

ARI = Tolerance(0, 1e-6)
FROM_MATRIX = Tolerance(0, 1e-5)
TREES = Tolerance(0, 1e-2)  # of another version of the library
LEVEL = Tolerance(0, 1.0)  # of another version of Pillow


# Patterns of keys; each one shows that a file holds metrics.
METRIC_KEYS = (('output/ari/*',), ('output/iou/*',), ('output/dci/*',), ('output/clevrtex/*',))


def metric_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  for name in golden.names_under('output/ari'):
    cases[f'ari_{name}'] = functools.partial(_check_ari, golden, name)
  for name in golden.names_under('output/iou'):
    cases[f'iou_{name}'] = functools.partial(_check_matching, golden, name)
  for name in golden.names_under('output/dci'):
    if name == 'importance_only_scores':
      cases['dci_importance_only'] = functools.partial(_check_importance, golden)
    else:
      cases[f'dci_{name}'] = functools.partial(_check_dci, golden, name)
  if golden.has('output/clevrtex/*'):
    cases['clevrtex'] = functools.partial(_check_textures, golden)
  return cases


def _owners(logits: np.ndarray) -> np.ndarray:
  """Masks [..., K, 1, H, W] -> slot of each pixel, [..., H, W]."""
  return logits[..., 0, :, :].argmax(-3)


def _check_ari(golden: Golden, name: str) -> None:
  stored = golden.under(f'input/ari/{name}')
  true = stored.get('true_ids')
  if true is None:  # masks that overlap: the last one counts
    masks = stored['true_mask'][:, :, 0] == 255
    true = (masks * np.arange(masks.shape[1])[:, None, None]).max(1)
  pairs = list(zip(true, _owners(stored['pred_logits']), strict=True))
  results = {
    key: np.array([adjusted_rand_index(*pair, foreground=key == 'fg') for pair in pairs])
    for key in ('fg', 'all')
  }
  compare(results, golden.under(f'output/ari/{name}'), lambda _: ARI)


def _check_matching(golden: Golden, name: str) -> None:
  stored = golden.under(f'input/iou/{name}')
  logits, present = stored['pred_logits'], stored['presence']
  matches = matching.match(stored['true_ids'], _owners(logits), int(present[1:].sum()), len(logits))
  results = {'gt_idx': matches.objects, 'pred_idx': matches.slots}
  compare(results, golden.under(f'output/iou/{name}'), lambda _: EXACT)


def _check_dci(golden: Golden, name: str) -> None:
  codes, factors = golden['input/dci/codes'], golden['input/dci/factors']
  discrete = tuple(kind == 'discrete' for kind in golden.config['dci_types'])
  # 'first 60 rows train, last 60 test'
  split = re.match(r'first (\d+) rows train', golden.config.get('dci_split', ''))
  held_out = np.arange(len(codes)) >= (int(split[1]) if split else len(codes) // 2)
  mode = {'reference': 'reference', 'per_factor_model': 'per_factor'}[name]
  seed = re.search(r'random\.seed\((\d+)\)', golden.config.get('dci_seed', ''))
  np.random.seed(int(seed[1]) if seed else 0)  # the estimators draw from the global generator
  importance, scores = dci.evaluate(codes, factors, discrete, held_out, mode)
  results = {'importance': importance, 'scores': np.array(scores)}
  compare(results, golden.under(f'output/dci/{name}'), lambda _: TREES)


def _check_importance(golden: Golden) -> None:
  matrix = golden['input/dci/importance_only']
  zeros = np.zeros_like(matrix)
  results = [score(m) for m in (matrix, zeros) for score in (dci.disentanglement, dci.completeness)]
  expected = golden['output/dci/importance_only_scores']
  compare({'': np.array(results)}, {'': expected}, lambda _: FROM_MATRIX)


def _check_textures(golden: Golden) -> None:
  stored = golden.under('input/clevrtex')
  logits = stored['pred_logits']
  rows = [
    matching.texture_scores(true[0], owners, logits.shape[1], image, painted)
    for true, owners, image, painted in zip(
      stored['true_ids'],
      _owners(logits),
      stored['true_image'],
      stored['pred_image'],
      strict=True,
    )
  ]
  names = {'mse_sum': 'MSE', 'acc': 'acc', 'miou': 'mIoU', 'miou_fg': 'mIoU_fg'}
  names |= {'miou_gt': 'mIoU_gt', 'dice': 'DICE', 'dice_fg': 'DICE_FG', 'ari': 'ARI'}
  names |= {'ari_fg': 'ARI_FG'}
  results = {theirs: np.mean([row[ours] for row in rows]) for ours, theirs in names.items()}
  compare(results, golden.under('output/clevrtex'), lambda _: FROM_MATRIX)


def evaluation_cases(golden: Golden) -> Cases:
  return {
    name: functools.partial(_check_evaluation, golden, name)
    for name in golden.names_under('output')
  }


@functools.cache
def _model_and_params(golden: Golden) -> tuple[EfficientMORL, Any]:
  model = networks.model_of(golden.config['Net'], use_geco=False)
  return model, networks.read_params(golden.beside(golden.config['params']), model)


@functools.cache
def _jitted(model: EfficientMORL) -> tuple[Any, Any, Any]:
  """Returns three jitted functions: stages of scenes, activeness, pictures of dimensions."""
  state = {'geco': objective.initial_geco()._asdict()}

  def segment(params, image, draw):
    with noise(normal=networks.repeated(draw)):
      return model.segment(params, state, {'image': image}, jax.random.key(0))

  functions = (segment, traversals.activeness(model), traversals.sweep(model))
  return tuple(golden_files.quick_jit(function) for function in functions)


SLOT = 1  # of the first scene, whose dimensions the file's pictures show


def _check_evaluation(golden: Golden, mode: str) -> None:
  model, params = _model_and_params(golden)
  stored = golden.under(f'output/{mode}')
  segment, active, pictures = _jitted(model)
  images = networks.images(golden)
  scenes = segment(params, images, networks.pattern(mode, model.num_slots * model.zdim))
  slots = scenes.slots[:, -1]
  between = traversals.latent_range(slots)
  compared = {'z_range': between, 'kl': scenes.kl[:, -1]}
  if 'activeness' in stored:
    chosen = golden[f'input/{mode}/activeness_slots']
    values = traversals.steps(between, traversals.STEPS)
    compared['activeness'] = active(params, slots, chosen, values)
  if 'viz_grid' in stored or 'viz_masks' in stored:
    shown = traversals.steps(traversals.limits(between, 'reference'), _columns(stored, model))
    painted, masks = pictures(params, slots[0], np.int32(SLOT), shown)
    grid = np.concatenate([framed_row(row) for row in painted])
    compared |= {'viz_grid': grid.transpose(2, 0, 1), 'viz_masks': _mask_grid(masks[-1, -1])}
  true = golden['input/true_ids'] if 'input/true_ids' in golden else None
  if 'ari' in stored:
    owners = scenes.log_masks[:, -1].argmax(1)
    pairs = zip(true, owners, strict=True)
    compared['ari'] = np.array([adjusted_rand_index(*pair) for pair in pairs])
  whole = (np.exp(scenes.log_masks[:, -1])[..., None] * scenes.rgb[:, -1]).sum(1)
  compared['mse'] = np.square(whole - images / 255).mean((1, 2, 3))
  if golden.has(f'output/{mode}/rinfo/*'):
    mask = stored.get('rinfo/data/true_mask')  # [1, objects, 1, H, W]
    objects = int(true.max()) + 1 if mask is None else mask.shape[1]
    first = jax.tree.map(lambda v: v[0], scenes)
    record = scene_records.record(images[0], true[0], objects, first)
    compared |= {f'rinfo/{name}': value for name, value in record.items()}
  compare(compared, stored, _tolerance)


def _columns(stored: dict[str, np.ndarray], model: EfficientMORL) -> int:
  """Returns the number of pictures in a line of the grid, which have a frame of two pixels."""
  if 'viz_grid' not in stored:
    return 2  # masks are shown at the last value only, which any two or more end with
  return (stored['viz_grid'].shape[-1] - 2) // (model.image_size + 2)


def _mask_grid(masks: np.ndarray) -> np.ndarray:
  """Masks [K, H, W] side by side, as grey pictures with a frame."""
  grey = np.repeat(masks[..., None], 3, axis=-1)
  return framed_row(grey).transpose(2, 0, 1)


def _tolerance(name: str) -> Tolerance:
  return networks.KL if name == 'kl' else networks.ARRAY


def preprocess_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  for name in golden.names_under('output'):
    if name.startswith('clevr-'):
      cases[name] = functools.partial(_check_picture, golden, name)
    elif name.startswith('pred_mask_resized_'):
      cases[name] = functools.partial(_check_enlarged, golden, name)
  if 'output/mask_cropped_ids' in golden:
    cases['masks'] = functools.partial(_check_masks, golden)
  if 'input/tetrominoes_example_u8' in golden:
    cases['tetrominoes'] = functools.partial(_check_tetrominoes, golden)
  return cases


def _box(golden: Golden) -> tuple[int, ...]:
  return tuple(golden.config['crop_box'])


def _check_picture(golden: Golden, name: str) -> None:
  """Pictures of records, and the results of the model for them."""
  raw, stored = golden['input/clevr_image_u8'], golden.under(f'output/{name}')
  size = stored['image_u8_chw'].shape[-1]
  image = Preparation(size, raw.shape[:2], _box(golden), 'bicubic')(raw, name)
  compare({'': image.transpose(2, 0, 1)}, {'': stored['image_u8_chw']}, lambda _: LEVEL)
  if 'first_rows_float' in stored:
    scaled = 2 * EfficientMORL(image_size=size).scale(stored['image_u8_chw']) - 1
    first = stored['first_rows_float']
    compare({'': scaled[:, : first.shape[1]]}, {'': first}, lambda _: Tolerance(0, 1e-6))


def _check_masks(golden: Golden) -> None:
  """Masks are cropped only."""
  ids, left = golden['input/clevr_ids'], _box(golden)
  cut = ids[left[1] : left[3], left[0] : left[2]]
  compare({'': cut}, {'': golden['output/mask_cropped_ids']}, lambda _: EXACT)


def _check_enlarged(golden: Golden, name: str) -> None:
  """Checks enlarged masks; the file has every third pixel.

  The name of the result tells the factor of the area.
  """
  (key,) = [key for key in golden.keys if key.startswith('input/pred_mask_')]
  growth = math.isqrt(int(re.fullmatch(r'pred_mask_resized_(\d+)x', name)[1]))
  masks = golden[key]
  enlarged = segmentation.enlarged(masks, growth * masks.shape[-1])
  compare({'': enlarged[0, ::3, ::3]}, {'': golden[f'output/{name}']}, lambda _: networks.ARRAY)


def _check_tetrominoes(golden: Golden) -> None:
  """Draws the published scenes again with the generator of synthetic ones."""
  images, owners = golden['input/tetrominoes_example_u8'], golden['input/tetrominoes_example_ids']
  for image, ids in zip(images, owners, strict=True):
    pieces = [_piece(image, ids == number) for number in range(1, ids.max() + 1)]
    rendered, segmentation = demo_tetrominoes.render(pieces)
    compare({'': rendered, 'ids': segmentation[..., 0]}, {'': image, 'ids': ids}, lambda _: EXACT)


def _piece(image: np.ndarray, mask: np.ndarray) -> demo_tetrominoes.Piece:
  rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
  cells = mask[rows[0] : rows[-1] + 1 : 5, columns[0] : columns[-1] + 1 : 5]
  shape = '/'.join(''.join('#' if cell else '.' for cell in row) for row in cells)
  color = tuple(int(on) for on in image[mask].any(0))
  return demo_tetrominoes.Piece(
    demo_tetrominoes.SHAPES.index(shape),
    demo_tetrominoes.COLORS.index(color),
    int(columns[0]),
    int(rows[0]),
  )
