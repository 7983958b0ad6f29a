"""Synthetic videos: their records, and properties of each world by construction."""

import hashlib
import pathlib
import pickle

import numpy as np
import pytest

from data_prep.core import clips, contents, shards
from data_prep.core.request import Request
from data_prep.datasets import demo_mazes, demo_minerl, demo_mnist, demo_moving_mnist
from data_prep.synthetic import (
  directions,
  draws,
  grid_rays,
  maze_view,
  mazes,
  noise,
  supersampling,
  terrain,
  terrain_ground,
  terrain_view,
  terrain_walk,
  trees,
)
from data_prep.synthetic.films import GeneratedFilms

MODULES = {
  'demo_moving_mnist': demo_moving_mnist,
  'demo_mazes': demo_mazes,
  'demo_minerl': demo_minerl,
}
MINERL_SLOW = (  # rendering it takes seconds
  'demo_moving_mnist',
  'demo_mazes',
  pytest.param('demo_minerl', marks=pytest.mark.slow),
)
# SHA-256 over all fields, in order, of examples 0..7 of the split `train`
GOLDEN = {
  'demo_moving_mnist': 'b2af63f86ed2608b5b651c9ba2c6960ddaf39e3c698064a8fc0eb53de0cc37a0',
  'demo_mazes': '5b5185d13beeb0d9d6c8fd372639a195ae3b55c3e7486ca78f3e9a429952ab97',
  'demo_minerl': '756d93235948b2421996e5f64d912aaecc94c0622fa0fb460a2afd37584ff69e',
}
PIXEL = 2**16  # units of positions per pixel


def load(name):
  return MODULES[name].load(Request(name, pathlib.Path()))


@pytest.fixture(scope='module')
def moving():
  return load('demo_moving_mnist')


@pytest.fixture(scope='module')
def maze():
  """A maze, its decor, and a walk of 300 frames."""
  rng = draws.generator(0, 7, 1)
  wall = mazes.carve(rng)
  return wall, maze_view.decorate(rng), mazes.walk(rng, wall, 300)


@pytest.mark.parametrize('name', MINERL_SLOW)
def test_records_are_golden_and_as_declared(name):
  whole = load(name)
  contents.validate(whole)
  digest = hashlib.sha256()
  for index, example in enumerate(whole.splits['train'].examples(0, 8)):
    digest.update(shards.encode(example, whole.fields))
    place = int(example['sequence']), int(example['start'])
    per_sequence = whole.info.details['video']['frames']['train'] // clips.CHUNK
    assert place == (index // per_sequence, index % per_sequence * clips.CHUNK)
  assert digest.hexdigest() == GOLDEN[name]


@pytest.mark.parametrize('name', MODULES)
def test_shards_and_views_hold_whole_sequences(name):
  whole = load(name)
  for split, frames in whole.info.details['video']['frames'].items():
    assert frames % clips.CHUNK == 0
    assert whole.splits[split].count % (frames // clips.CHUNK) == 0
    assert whole.records_per_shard % (frames // clips.CHUNK) == 0
  assert {view: spec.split for view, spec in whole.views.items()} == {
    'train': 'train',
    'valid': 'test',
    'test': 'test',
  }


@pytest.mark.parametrize('name', MINERL_SLOW)
def test_an_example_depends_on_its_index_alone(name, moving):
  films = {
    'demo_moving_mnist': moving.splits['test'].examples.film,
    'demo_mazes': GeneratedFilms(demo_mazes.render_walk, split=1, frames=40),
    'demo_minerl': GeneratedFilms(demo_minerl.render_walk, split=1, frames=40),
  }
  frames = 1000 if name == 'demo_moving_mnist' else 40
  split = clips.split_of_film(films[name], (frames,) * 3)
  last = frames // clips.CHUNK - 1  # of the first sequence
  elsewhere = pickle.loads(pickle.dumps(split.examples))
  together = list(split.examples(last - 1, last + 3))
  for index, example in zip(range(last - 1, last + 3), together, strict=True):
    (alone,) = elsewhere(index, index + 1)
    for field, array in example.items():
      np.testing.assert_array_equal(alone[field], array)
  assert not np.array_equal(together[1]['video'], together[3]['video'])


@pytest.mark.parametrize('module', [demo_mazes, demo_minerl])
def test_splits_show_different_places(module):
  train, test = (GeneratedFilms(module.render_walk, split, frames=1)(0) for split in (0, 1))
  assert np.abs(train.astype(int) - test).mean() > 5


@pytest.mark.slow
def test_digits_never_leave_the_picture():
  dim = np.zeros((2, 28, 28), np.uint8)
  dim[0, :, 0], dim[1, -1] = 100, 90  # marks at the very edges; no sum reaches 255
  film = GeneratedFilms(demo_moving_mnist.MovingDigits(dim), split=0, frames=400)
  for sequence in range(20):
    total = film(sequence).sum((1, 2, 3), dtype=np.int64)
    assert np.ptp(total) == 0
    assert total[0] in (2 * 2800, 2800 + 2520, 2 * 2520)


def test_digits_add_up_to_white():
  bright = np.full((1, 28, 28), 200, np.uint8)
  levels = GeneratedFilms(demo_moving_mnist.MovingDigits(bright), split=0, frames=200)(0)
  assert np.unique(levels).tolist() == [0, 200, 255]


@pytest.mark.slow
def test_digits_move_at_two_to_six_pixels_and_reach_every_border():
  paths = np.stack([demo_moving_mnist.bounce(draws.generator(0, 9, i), 300) for i in range(2000)])
  paths = paths / PIXEL
  assert paths.min() >= 0
  assert paths.max() <= 36
  assert paths[..., 0].max() > 35.9
  assert paths[..., 0].min() < 0.1
  speed = np.median(np.linalg.norm(np.diff(paths, axis=1), axis=-1), axis=1)  # between bounces
  assert speed.min() > 1.99
  assert speed.max() < 6.01
  assert abs(speed.mean() - 4) < 4 * 4 / np.sqrt(12 * 2000)  # four standard errors of U[2, 6]
  along = np.abs(np.diff(paths[:, :2], axis=1)[:, 0])
  assert abs(along[:, 0].mean() - along[:, 1].mean()) < 0.2  # no direction is preferred
  assert abs(paths[:, 0].mean() - 18) < 4 * 36 / np.sqrt(12 * 4000)


def test_digits_bounce_like_light():
  path = demo_moving_mnist.bounce(draws.generator(0, 9, 0), 1000)
  velocity = path[1] - path[0]
  for axis in (0, 1):
    place, step = int(path[0, axis]), int(velocity[axis])
    for expected in path[1:, axis]:
      place += step
      if not 0 <= place <= 36 * PIXEL:
        place, step = (-place if place < 0 else 72 * PIXEL - place), -step
      assert place == expected


def test_train_and_test_digits_differ(moving):
  still = demo_mnist.load(Request('demo_mnist', pathlib.Path()))
  image = still.splits['all'].examples.arrays['image'][:, 2:-2, 2:-2, 0]
  shown = {split: moving.splits[split].examples.film.render.digits for split in ('train', 'test')}
  np.testing.assert_array_equal(shown['train'], image[still.views['train'].indices])
  assert len(shown['test']) == 500
  train, test = ({digit.tobytes() for digit in digits} for digits in shown.values())
  assert len(train | test) == 5000


def test_mazes_are_perfect():
  for index in range(50):
    wall = mazes.carve(draws.generator(0, 9, index))
    assert wall[[0, -1]].all()
    assert wall[:, [0, -1]].all()
    assert not wall[1::2, 1::2].any()
    assert wall[::2, ::2].all()
    doors = [tuple(door) for door in np.argwhere(~wall) if door.sum() % 2]
    assert len(doors) == 15  # a tree over 16 cells, if all can be reached
    reached = {(1, 1)}
    for _ in doors:
      for row, column in doors:
        down = (row + 1) % 2
        ends = {(row - down, column - 1 + down), (row + down, column + 1 - down)}
        reached |= ends if ends & reached else set()
    assert len(reached) == 16


@pytest.mark.slow
def test_maze_walks_keep_their_speed_and_turn_smoothly():
  for index in range(30):
    rng = draws.generator(0, 9, index)
    wall = mazes.carve(rng)
    poses = mazes.walk(rng, wall, 300)
    assert not wall[np.floor(poses.y).astype(int), np.floor(poses.x).astype(int)].any()
    step = np.hypot(np.diff(poses.x), np.diff(poses.y))
    turn = np.diff(poses.heading)
    turn -= np.rint(turn)
    moving = step > 1e-9
    np.testing.assert_allclose(step[moving], 1 / 7, rtol=2e-3)
    assert np.abs(turn).max() <= 1 / 44 + 1e-12
    assert (np.abs(turn[~moving]) > 0).all()  # it stops only to turn round


@pytest.mark.slow
def test_revisited_places_look_the_same(maze):
  wall, decor, poses = maze
  film = maze_view.film(wall, decor, poses)
  assert len(np.unique(film.reshape(300, -1), axis=0)) > 100
  key = np.stack([poses.x, poses.y, poses.heading % 1]).round(9).T.tolist()
  first = {tuple(pose): frame for frame, pose in reversed(list(enumerate(key)))}
  again = [(first[tuple(pose)], frame) for frame, pose in enumerate(key)]
  again = [(before, frame) for before, frame in again if before < frame]
  assert len(again) > 20
  for before, frame in again:
    np.testing.assert_array_equal(film[before], film[frame])


@pytest.mark.slow
def test_panorama_at_the_start_equals_the_one_on_return(maze):
  wall, decor, _ = maze
  poses = mazes.walk(draws.generator(0, 7, 2), wall, 2000)

  def panorama(frame):
    around = mazes.Poses(
      *(np.full(8, place[frame]) for place in (poses.x, poses.y)), np.arange(8) / 8
    )
    return maze_view.film(wall, decor, around)

  away = np.hypot(poses.x - poses.x[0], poses.y - poses.y[0])
  returns = np.flatnonzero((away == 0) & (np.arange(2000) > 20))
  assert len(returns)
  np.testing.assert_array_equal(panorama(0), panorama(returns[0]))
  assert np.abs(panorama(0).astype(int) - panorama(int(away.argmax()))).mean() > 10


@pytest.mark.slow
def test_rays_meet_every_cell_on_their_way():
  rng = np.random.default_rng(0)
  start, ray = rng.uniform(3, 6, (2, 200)), rng.uniform(-1, 1, (2, 200))
  steps = list(grid_rays.crossings(*start, *ray, 12))
  for index in range(200):
    depths = [step.depth[index] for step in steps]
    assert (np.diff(depths) >= 0).all()
    for step, leaves in zip(steps[:-1], depths[1:], strict=True):
      middle = start[:, index] + ray[:, index] * (step.depth[index] + leaves) / 2
      assert np.floor(middle).tolist() == [step.column[index], step.row[index]]
      edge = start[:, index] + ray[:, index] * step.depth[index]
      crossed = edge[1] if step.on_row[index] else edge[0]
      assert abs(crossed - round(crossed)) < 1e-9


def test_a_wall_on_flat_land_stands_where_geometry_says():
  side = terrain.SIDE
  height = np.zeros((side, side), np.int64)
  height[:, 10:12] = 3
  land = terrain.Terrain(
    height,
    np.full((side, side), terrain.GRASS),
    np.ones((side, side), np.float32),
    np.zeros((terrain.GRAIN, terrain.GRAIN), np.float32),
  )
  eye, ahead = 1.62, 10 - 2.25
  pose = terrain_walk.Poses(*(np.array([number]) for number in (2.25, 40.75, eye, 0.0)))
  across, down = grid_rays.screen(64, 0.8), grid_rays.screen(64, 0.8) + 0.013
  picture, depth = terrain_ground.render(land, pose, across, down)
  expected = np.where(down * ahead > eye, eye / down, ahead)
  expected[down * ahead < eye - 3] = np.inf
  np.testing.assert_allclose(depth[0], np.repeat(expected[:, None], 64, axis=1), rtol=1e-5)
  turf, soil, grass = (
    picture[0, np.flatnonzero(rows)[0], 32]
    for rows in (
      np.isfinite(expected),
      (down * ahead > eye - 2) & (down * ahead < eye - 1),
      down * ahead > eye,
    )
  )
  assert grass[1] > grass[0]  # green on top and on the rim of the face, brown below
  assert turf[1] > turf[0]
  assert soil[0] > soil[1]


@pytest.mark.slow
def test_land_walks_go_from_goal_to_goal_past_trees_and_pillars():
  for index in range(10):
    rng = draws.generator(0, 9, index)
    land = terrain.generate(rng)
    walk = terrain_walk.walk(rng, land, 500)
    poses = walk.poses
    step = np.hypot(np.diff(poses.x), np.diff(poses.y))
    np.testing.assert_allclose(step, terrain_walk.SPEED, rtol=1e-5)
    assert np.abs(np.diff(poses.heading)).max() <= 0.012
    ground = land.height[np.floor(poses.y).astype(int), np.floor(poses.x).astype(int)]
    assert (poses.eye > ground + 0.3).all()
    assert np.abs(np.diff(poses.eye)).max() < 0.5  # it glides

    goals = np.stack([walk.goal_column, walk.goal_row], 1) + 0.5
    away = np.linalg.norm(np.stack([poses.x, poses.y], 1)[:, None] - goals, axis=-1)
    assert len(goals) >= 2
    assert (away.min(0)[:-1] < 6).all()  # all but the last were reached
    assert away.min() > np.sqrt(0.5)  # and none was walked through
    assert (land.with_goals(walk.goal_row, walk.goal_column).height >= land.height).all()

    wood = trees.plant(rng, land, walk)
    near = np.hypot(wood.x[:, None] - poses.x, wood.y[:, None] - poses.y)
    assert near.min() > 3
    rows, columns = np.floor(wood.y).astype(int), np.floor(wood.x).astype(int)
    assert set(land.ground[rows, columns]) <= {terrain.GRASS, terrain.DRY}
    np.testing.assert_array_equal(wood.foot, land.height[rows, columns])


def test_trees_hide_what_is_behind_and_nothing_before():
  rng = draws.generator(0, 9, 0)
  land = terrain.generate(rng)
  walk = terrain_walk.walk(rng, land, 20)
  wood = trees.plant(rng, land, walk)
  tree = int(np.hypot(wood.x - 128, wood.y - 128).argmin())
  pose = terrain_walk.Poses(wood.x[tree] - 6, wood.y[tree], wood.foot[tree] + 2, 0.0)
  across = grid_rays.screen(128, 0.8)
  for behind, visible in ((np.inf, True), (0.1, False)):
    picture = np.full((128, 128, 3), -1, np.float32)
    depth = np.full((128, 128), behind, np.float32)
    trees.render(picture, depth, wood, pose, across, across)
    assert (picture >= 0).any() == visible
    np.testing.assert_array_equal((picture >= 0).all(-1), depth != np.float32(behind))
  assert depth[64, 64] == np.float32(0.1)


@pytest.mark.slow
def test_daylight_drifts():
  spans = []
  for index in range(200):
    light = terrain_view.daylight(draws.generator(0, 9, index), 500)
    assert light.min() >= 0.15
    assert light.max() <= 1
    assert np.abs(np.diff(light)).max() < 0.01
    spans.append(np.ptp(light))
  assert np.mean(np.array(spans) > 0.1) > 0.3


def test_directions_are_coarse_enough_to_be_the_same_everywhere():
  cos, sin = directions.direction(np.arange(-44, 88) / 44)
  for part in (cos, sin):
    np.testing.assert_array_equal(part * 2**20, np.rint(part * 2**20))
  np.testing.assert_allclose(cos * cos + sin * sin, 1, atol=2e-6)
  exact = [[1, 0, -1, 0], [0, 1, 0, -1]]
  np.testing.assert_array_equal(directions.direction(np.arange(4) / 4), exact)


def test_noise_has_no_seam():
  pattern = noise.fractal_noise(draws.generator(0, 9, 0), 64, 4, 2)
  assert pattern.min() >= 0
  assert pattern.max() <= 1
  assert np.ptp(pattern) > 0.4
  for axis in (0, 1):
    inside = np.abs(np.diff(pattern, axis=axis)).max()
    seam = np.abs(np.take(pattern, 0, axis) - np.take(pattern, -1, axis)).max()
    assert seam <= inside


def test_fine_pictures_are_averaged_rounded_and_never_overflow():
  fine = np.array([[0, 1, 400, 300.9], [0, 1, 255, 200]])[np.newaxis, ..., np.newaxis]
  np.testing.assert_array_equal(supersampling.halve(fine)[0, ..., 0], [[1, 255]])
