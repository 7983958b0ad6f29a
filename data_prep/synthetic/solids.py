"""Spheres, cubes and cylinders on a plane: intersections with rays, and normals.

Vectors are float32 arrays [3, ...], z upwards. All operations on them are exactly rounded by IEEE
754, so pictures are identical on every platform.
"""

import dataclasses

import numpy as np

SHAPES = ('cube', 'sphere', 'cylinder')
_BOUNDS = {'cube': 3**0.5, 'sphere': 1, 'cylinder': 2**0.5}  # radius of the bounding sphere
_TOUCHING = np.float32(1e-3)  # nearest distance of a hit


@dataclasses.dataclass(frozen=True)
class Solid:
  """A convex body.

  Attributes:
    shape: one of `SHAPES`.
    center: x, y, z.
    radius: radius of a sphere or cylinder, which is also half the height of a cylinder; half the
      side of a cube.
    heading: cosine and sine of its rotation about the vertical axis.
  """

  shape: str
  center: tuple[float, float, float]
  radius: float
  heading: tuple[float, float] = (1.0, 0.0)

  @property
  def bound(self) -> float:
    """Radius of the bounding sphere."""
    return self.radius * _BOUNDS[self.shape]

  def frame(self, points: np.ndarray) -> np.ndarray:
    """Transforms points [3, ...] to axes that move and turn with the solid."""
    return self.turn(points - column(self.center, points.ndim))

  def turn(self, vectors: np.ndarray) -> np.ndarray:
    """Transforms directions [3, ...] to axes that turn with the solid."""
    return _turn(vectors, *self.heading)

  def meet(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Returns the distance along rays from outside, in lengths of `direction`; inf if they miss.

    Args:
      origin, direction: [3, ...], shapes that broadcast.
    """
    scale = np.float32(1 / self.radius)
    near, far = _INTERVALS[self.shape](self.frame(origin) * scale, self.turn(direction) * scale)
    return np.where((near < far) & (near > _TOUCHING), near, np.float32(np.inf))

  def normals(self, points: np.ndarray) -> np.ndarray:
    """Returns unit normals [3, N] at points [3, N] of the surface."""
    local = _NORMALS[self.shape](self.frame(points) * np.float32(1 / self.radius))
    return _turn(local, self.heading[0], -self.heading[1])


def column(vector: tuple[float, float, float] | np.ndarray, ndim: int = 2) -> np.ndarray:
  """Returns one vector as float32 [3, 1, ...], to broadcast with arrays of `ndim` axes."""
  return np.asarray(vector, np.float32).reshape(3, *[1] * (ndim - 1))


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns inner products over the first axis, added in a fixed order."""
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _turn(vectors: np.ndarray, cosine: float, sine: float) -> np.ndarray:
  c, s = np.float32(cosine), np.float32(sine)
  x, y, z = vectors
  return np.stack([x * c + y * s, y * c - x * s, z])


def _meet_sphere(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns first and last distance inside; first >= last for a miss, also below."""
  return _solve(dot(d, d), dot(o, d), dot(o, o))


def _meet_cube(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  near, far = _meet_slab(o[0], d[0])
  for axis in (1, 2):
    first, last = _meet_slab(o[axis], d[axis])
    near, far = np.maximum(near, first), np.minimum(far, last)
  return near, far


def _meet_cylinder(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  near, far = _solve(
    d[0] * d[0] + d[1] * d[1], o[0] * d[0] + o[1] * d[1], o[0] * o[0] + o[1] * o[1]
  )
  first, last = _meet_slab(o[2], d[2])
  return np.maximum(near, first), np.minimum(far, last)


def _solve(dd: np.ndarray, od: np.ndarray, oo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns both distances t with |o + t d| = 1."""
  dd = np.maximum(dd, np.float32(1e-9))  # it is 0 for a ray along the axis of a cylinder
  root = np.sqrt(np.maximum(od * od - dd * (oo - 1), 0))
  return (-od - root) / dd, (-od + root) / dd


def _meet_slab(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the interval of distances in which a coordinate is within [-1, 1]."""
  inverse = 1 / np.where(abs(d) < 1e-9, np.float32(1e-9), d)
  a, b = (-1 - o) * inverse, (1 - o) * inverse
  return np.minimum(a, b), np.maximum(a, b)


def _cube_normals(local: np.ndarray) -> np.ndarray:
  size = abs(local)
  x = (size[0] > size[1]) & (size[0] > size[2])
  y = ~x & (size[1] > size[2])
  return np.sign(local) * np.stack([x, y, ~(x | y)])


def _cylinder_normals(local: np.ndarray) -> np.ndarray:
  x, y, z = local
  around = x * x + y * y
  cap = z * z > around
  scale = np.where(cap, 0, 1 / np.sqrt(np.maximum(around, np.float32(1e-9))))
  return np.stack([x * scale, y * scale, np.where(cap, np.sign(z), 0)])


def _sphere_normals(local: np.ndarray) -> np.ndarray:
  return local / np.sqrt(dot(local, local))


_INTERVALS = {'cube': _meet_cube, 'sphere': _meet_sphere, 'cylinder': _meet_cylinder}
_NORMALS = {'cube': _cube_normals, 'sphere': _sphere_normals, 'cylinder': _cylinder_normals}
