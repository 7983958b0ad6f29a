"""Ray caster: surfaces, shadows, reflections and camera, against their definitions."""

import numpy as np
from PIL import Image
import pytest

from data_prep.synthetic import ray_caster
from data_prep.synthetic.ray_caster import Light, Paint, Scene
from data_prep.synthetic.solids import SHAPES, Solid, dot

BOX = (64, 29, 256, 221)


def rays_at_random(count, seed=0):
  """Draws origins at distance 4 and unit directions; many rays hit the unit ball."""
  rng = np.random.default_rng(seed)
  origin = rng.normal(size=(3, count))
  origin *= 4 / np.sqrt(dot(origin, origin))
  rays = rng.uniform(-1.3, 1.3, (3, count)) - origin
  return origin.astype(np.float32), (rays / np.sqrt(dot(rays, rays))).astype(np.float32)


def is_inside(shape, local, scale):
  """Returns whether points [3, ...] are inside a solid of radius `scale`, by its definition."""
  x, y, z = abs(local)
  return {
    'cube': np.maximum(np.maximum(x, y), z) < scale,
    'sphere': x * x + y * y + z * z < scale**2,
    'cylinder': (x * x + y * y < scale**2) & (z < scale),
  }[shape]


@pytest.mark.slow
@pytest.mark.parametrize('shape', SHAPES)
def test_rays_meet_the_surface_first(shape):
  solid = Solid(shape, (0.0, 0.0, 0.0), 0.8, (0.6, 0.8))
  origin, rays = rays_at_random(3000)
  distance = solid.meet(origin, rays)
  hit = np.isfinite(distance)
  assert 500 < hit.sum() < 2900

  steps = np.linspace(0, 8, 1601, dtype=np.float32)  # 0.005 apart
  path = origin[..., None] + rays[..., None] * steps
  inside = is_inside(shape, solid.frame(path.reshape(3, -1)), 0.8).reshape(path.shape[1:])
  first = np.where(inside.any(1), steps[inside.argmax(1)], np.inf)
  deep = inside.sum(1) > 2  # a chord longer than the steps
  assert hit[deep].all()
  assert not inside[~hit].any()
  assert (abs(first[deep] - distance[deep]) <= 0.0051).all()

  points = origin[:, hit] + rays[:, hit] * distance[hit]
  normals = solid.normals(points)
  np.testing.assert_allclose(dot(normals, normals), 1, atol=1e-5)
  assert not is_inside(shape, solid.frame(points + normals * 1e-3), 0.8).any()
  assert (dot(normals, rays[:, hit]) < 1e-4).all()  # seen from the front


@pytest.mark.parametrize(
  ('shape', 'top'), [('cube', 1), ('sphere', (1 - 0.05) ** 0.5), ('cylinder', 1)]
)
def test_rays_along_an_axis(shape, top):
  solid = Solid(shape, (0.0, 0.0, 0.0), 1.0)
  origin = np.array([[0.1, 1.1], [0.2, 0.2], [3.0, 3.0]], np.float32)
  distance = solid.meet(origin, np.array([[0], [0], [-1]], np.float32))
  np.testing.assert_allclose(distance, [3 - top, np.inf], rtol=1e-5)


def test_sphere_shades_what_lies_under_it():
  """A wide light from above gives umbra, penumbra and full light."""
  solid = Solid('sphere', (0.0, 0.0, 1.0), 0.5)
  light = Light((0.0, 1e-6, 1.0), strength=1.0, spread=0.2, samples=64)
  x = np.linspace(0, 1.5, 31, dtype=np.float32)
  points, normals = np.zeros((3, 31), np.float32), np.zeros((3, 31), np.float32)
  points[0], normals[2] = x, 1
  hits = ray_caster.Hits(points, normals, np.zeros(31, np.uint8))
  paints = [Paint((255, 255, 255))] * 2
  whole = ray_caster.irradiance(Scene([solid], paints, [light]), hits)
  direct = whole - ray_caster.irradiance(Scene([solid], paints, []), hits)
  assert (np.diff(direct[x < 0.7]) >= 0).all()
  assert (direct[x < 0.25] == 0).all()  # rays within 0.2 of the vertical still hit the sphere
  assert (direct[(x > 0.4) & (x < 0.6)] > 0).all()
  assert (direct[x > 0.75] > 0.97).all()  # light fades by 2 % this far from the middle


@pytest.mark.slow
def test_crop_is_cut_out_of_the_whole_frame():
  """Rendering only the crop, as the builder does, equals rendering 240x320 and cropping."""
  camera = ray_caster.Camera((7.5, -6.5, 5.4))
  solids = [Solid('sphere', (0.0, 0.0, 0.7), 0.7), Solid('cube', (-1.0, 1.0, 0.5), 0.5)]
  paints = [Paint((170, 170, 170)), Paint((41, 208, 208), True), Paint((173, 35, 35))]
  lights = [Light((0.0, -0.7, 1.0), 0.7, 0.2, 8)]

  def render(box):
    rays = camera.rays(box)
    hits = ray_caster.trace(solids, camera.origin, rays)
    levels = ray_caster.paint(Scene(solids, paints, lights), rays, hits)
    return levels.reshape(box[3] - box[1], box[2] - box[0], 3)

  whole = Image.fromarray(render((0, 0, 320, 240)))
  assert np.unique(np.asarray(whole)).size > 100
  np.testing.assert_array_equal(np.asarray(whole.crop(BOX)), render(BOX))


def test_projection_inverts_the_rays():
  camera = ray_caster.Camera((7.2, -6.9, 5.0))
  for column_of, row in ((64, 29), (200, 150), (319, 239)):
    ray = camera.rays((column_of, row, column_of + 1, row + 1))[:, 0].astype(float)
    x, y, depth = camera.project(tuple(np.array(camera.position) + 9 * ray))
    np.testing.assert_allclose((x, y), (column_of + 0.5, row + 0.5), atol=1e-3)
    assert 0 < depth <= 9


@pytest.mark.slow
def test_mirror_shows_its_neighbour():
  """A metal ball beside a red one reflects red; a rubber ball does not."""
  camera = ray_caster.Camera((7.5, -6.5, 5.4))
  solids = [Solid('sphere', (0.0, 0.0, 0.7), 0.7), Solid('sphere', (1.0, -1.6, 0.7), 0.7)]
  rays = camera.rays(BOX)
  hits = ray_caster.trace(solids, camera.origin, rays)
  redness = {}
  for metal in (True, False):
    paints = [Paint((170, 170, 170)), Paint((87, 87, 87), metal), Paint((200, 0, 0))]
    levels = ray_caster.paint(Scene(solids, paints, []), rays, hits)[hits.number == 1].astype(int)
    redness[metal] = (levels[:, 0] - levels[:, 2]).max()
  assert redness[True] > 20
  assert redness[False] == 0
