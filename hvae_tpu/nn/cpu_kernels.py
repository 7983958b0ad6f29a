"""Forms of layers that exist only because XLA is slow, or rounds badly, at the plain ones on a CPU.

A reader of the models may ignore this module. Each function equals a plain one up to rounding:

* `pointwise_matmul` and `convolve_patches`: `nn.Conv` with kernel 1x1, or kernel = stride.
* `add_bias`: `x + bias`, with a gradient that is summed in float32.
* `convolve`: a convolution of stride 1, with gradients that are fast in loops and branches.
* `convolve_depthwise`: a depthwise convolution of stride 1, as products of shifted images. At 5x5
  it is ten times faster on a CPU, gradient included. It goes through the batch image by image,
  which would serialise an accelerator and gather a batch that is spread over devices.
* `convolve_strided` and `convolve_transposed`: convolutions of stride 2 without padding, as matrix
  products. Their gradients are many times faster on a CPU.

The last three are chosen by fields of the models; accelerators keep the plain convolutions
(`AUTO_ALWAYS` and `AUTO` in `hvae_tpu/models/`).
"""

from collections.abc import Iterator
import functools

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.nn import rows

FORMS = ('conv', 'shifts')
PIECE = 5  # pixels of a row that `_overlap_pieces` takes at once
SHIFTS = [(i, j) for i in range(3) for j in range(3)]  # of a patch of 3 x 3 pixels


def pointwise_matmul(x: Array, kernel: Array) -> Array:
  """Multiplies the channels of every pixel: x [B, H, W, n] @ kernel [n, m].

  On a CPU the gradient of a product of one long axis needs no transposed copies. But rows that are
  one axis with the examples could not stay split over devices (`rows.split_rows`).
  """
  if rows.row_parts() > 1:
    return x @ kernel
  return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def convolve_patches(x: Array, kernel: Array) -> Array:
  """Returns a convolution whose kernel is as large as its stride, as one matrix product.

  Args:
    x: [B, H, W, n], H and W multiples of r.
    kernel: [r, r, n, m].

  Returns:
    [B, H // r, W // r, m].
  """
  r, (num, height, width, channels) = len(kernel), x.shape
  if r > 1:
    x = x.reshape(num, height // r, r, width // r, r, channels).swapaxes(2, 3)
    x = x.reshape(num, height // r, width // r, r * r * channels)
  return pointwise_matmul(x, kernel.reshape(-1, kernel.shape[-1]))


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
  """Adds a float32 bias [m] to x [..., m], in the type of `x`.

  The bias's gradient is summed in float32. A CPU would round a sum over all pixels to bfloat16 at
  every addition, and lose most of its digits.
  """
  return x + bias.astype(x.dtype)


def _add_bias_backward(_, cotangent):
  axes = tuple(range(cotangent.ndim - 1))
  return cotangent, cotangent.sum(axes, dtype=jnp.float32)


add_bias.defvjp(lambda x, bias: (add_bias.fun(x, bias), None), _add_bias_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Array, kernel: Array, padding: int) -> Array:
  """Returns a convolution of stride 1 whose gradients are fast in loops and branches too.

  A CPU's compiler knows the fast form of a gradient only outside of loops, and takes a hundred
  times as long inside. Plain convolutions of transposed arrays are fast everywhere.

  Args:
    x: [N, n, n, C].
    kernel: [k, k, C, features].
    padding: zeros on every side, less than k.

  Returns:
    [N, m, m, features], m = n + 2 * padding + 1 - k.
  """
  return _convolve(x, kernel, padding)


def _convolve(x: Array, kernel: Array, padding: int) -> Array:
  pads, layout = ((padding, padding), (padding, padding)), ('NHWC', 'HWIO', 'NHWC')
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=layout)


def _convolve_backward(padding, saved, cotangent):
  x, kernel = saved

  def plain(x, kernel, g):
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    by_x = _convolve(g, turned, len(kernel) - 1 - padding)
    by_kernel = _convolve(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), padding)
    return by_x, by_kernel.transpose(1, 2, 0, 3)

  def usual(x, kernel, g):
    return jax.vjp(functools.partial(_convolve, padding=padding), x, kernel)[1](g)

  return jax.lax.platform_dependent(x, kernel, cotangent, cpu=plain, default=usual)


# The forward pass calls the function itself, so that its own derivatives have these rules too.
convolve.defvjp(lambda x, kernel, p: (convolve(x, kernel, p), (x, kernel)), _convolve_backward)


@jax.custom_vjp
def convolve_depthwise(x: Array, kernel: Array) -> Array:
  """Returns a depthwise convolution with zeros around, for reverse differentiation only.

  Sums are float32, whatever the inputs are.

  Args:
    x: [B, H, W, C].
    kernel: [k, k, 1, C], k odd.

  Returns:
    [B, H, W, C].
  """
  weights = kernel.astype(jnp.float32).reshape(-1, x.shape[-1])

  # The loop keeps an image, which is read 25 times, in the cache. It also keeps the compiler from
  # computing the image 25 times.
  def convolve_one(x):
    parts = _shifted(x, kernel.shape[0])
    return sum(part * w for part, w in zip(parts, weights, strict=True)).astype(x.dtype)

  return jax.lax.map(convolve_one, x)


def _shifted(x: Array, size: int) -> Iterator[Array]:
  """Yields the image [H, W, C] that each weight of the kernel multiplies, row by row."""
  pad, (height, width, _) = (size - 1) // 2, x.shape
  x = jnp.pad(x.astype(jnp.float32), ((pad, pad), (pad, pad), (0, 0)))
  for i in range(size):
    for j in range(size):
      yield x[i : i + height, j : j + width]


def _depthwise_backward(inputs: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
  x, kernel = inputs
  size, channels = kernel.shape[0], x.shape[-1]

  def add(total, pair):
    one, dy = pair[0], pair[1].astype(jnp.float32)
    return total + _sums([part * dy for part in _shifted(one, size)]), None

  weights, _ = jax.lax.scan(add, jnp.zeros((size**2, channels)), (x, cotangent))
  dx = convolve_depthwise(cotangent, kernel[::-1, ::-1]).astype(x.dtype)
  return dx, weights.reshape(kernel.shape).astype(kernel.dtype)


def _sums(products: list[Array]) -> Array:
  """Sums n products [H, W, C] over pixels in one pass: [n, C]."""
  zeros = (jnp.zeros(()),) * len(products)
  add = lambda left, right: tuple(a + b for a, b in zip(left, right, strict=True))
  return jnp.stack(jax.lax.reduce(tuple(products), zeros, add, (0, 1)))


convolve_depthwise.defvjp(
  lambda x, kernel: (convolve_depthwise(x, kernel), (x, kernel)), _depthwise_backward
)


def convolve_strided(x: Array, kernel: Array) -> Array:
  """Returns a convolution of stride 2 without padding, as one matrix product of all patches.

  A patch is four neighbouring blocks of 2 x 2 pixels. The gain is largest where there are many
  channels and few pixels.

  Args:
    x: [N, n, n, C].
    kernel: [4, 4, C, F].

  Returns:
    [N, n // 2 - 1, n // 2 - 1, F].
  """
  num, height, width, channels = x.shape
  rows, columns = height // 2 - 1, width // 2 - 1
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  x = x.reshape(num, rows + 1, 2, columns + 1, 2, channels).swapaxes(2, 3)
  x = x.reshape(num, rows + 1, columns + 1, 4 * channels)
  corners = [x[:, i : i + rows, j : j + columns] for i in range(2) for j in range(2)]
  patches = jnp.concatenate(corners, axis=-1).reshape(-1, 16 * channels)
  kernel = kernel.reshape(2, 2, 2, 2, channels, -1).swapaxes(1, 2).reshape(16 * channels, -1)
  return (patches @ kernel).reshape(num, rows, columns, -1)


def convolve_transposed(x: Array, kernel: Array) -> Array:
  """Returns a transposed convolution of stride 2 without padding, as a matrix product.

  The product takes pieces of rows where channels are few. Elsewhere it takes pixels or patches,
  whichever writes less: there are more patches, so their product is larger. Both limits were
  measured.

  Args:
    x: [N, n, n, C].
    kernel: [k, k, C, F], k at most 6; correlated with the spread-out input, not flipped.

  Returns:
    [N, 2 (n - 1) + k, 2 (n - 1) + k, F].
  """
  num, n, _, channels = x.shape
  k, features = kernel.shape[0], kernel.shape[-1]
  if n == 1:
    kernel = kernel[::-1, ::-1].transpose(2, 0, 1, 3)
    return (x.reshape(num, channels) @ kernel.reshape(channels, -1)).reshape(num, k, k, features)
  kernel = jnp.pad(kernel, ((6 - k, 0), (6 - k, 0), (0, 0), (0, 0)))[::-1, ::-1]
  side = 2 * (n - 1) + k
  if channels * features <= 16 and n % PIECE == 0:
    return _overlap_pieces(x, kernel)[:, :side, :side]
  # Output pixel 2 q + s sees input pixel q - i through tap 2 i + s: three taps of each parity.
  kernel = kernel.reshape(3, 2, 3, 2, channels, features).transpose(0, 2, 4, 1, 3, 5)
  kernel = kernel.reshape(9, channels, 4 * features)
  patches = (n + 2) ** 2 * channels < 0.8 * n**2 * 4 * features
  out = (_multiply_patches if patches else _overlap_pixels)(x, kernel)
  out = out.reshape(num, n + 2, n + 2, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
  return out.reshape(num, 2 * n + 4, 2 * n + 4, features)[:, :side, :side]


def _multiply_patches(x: Array, kernel: Array) -> Array:
  """Multiplies all patches of 3 x 3 pixels [N, n, n, C] by [9, C, F]: [N, n + 2, n + 2, F]."""
  num, n, _, channels = x.shape
  x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
  patches = [x[:, 2 - i : n + 4 - i, 2 - j : n + 4 - j] for i, j in SHIFTS]
  patches = jnp.concatenate(patches, axis=-1).reshape(-1, 9 * channels)
  return (patches @ kernel.reshape(9 * channels, -1)).reshape(num, n + 2, n + 2, -1)


def _overlap_pixels(x: Array, kernel: Array) -> Array:
  """Multiplies every pixel by the whole kernel and adds overlaps; equals `_multiply_patches`."""
  num, n, _, channels = x.shape
  parts = x.reshape(-1, channels) @ kernel.swapaxes(0, 1).reshape(channels, -1)
  parts = jnp.split(parts.reshape(num, n, n, -1), 9, axis=-1)
  pads = [((0, 0), (i, 2 - i), (j, 2 - j), (0, 0)) for i, j in SHIFTS]
  return sum(jnp.pad(part, pad) for part, pad in zip(parts, pads, strict=True))


def _overlap_pieces(x: Array, kernel: Array) -> Array:
  """Multiplies pieces of rows by a banded matrix and adds overlaps.

  A piece of a row, PIECE * C numbers, makes six rows of 2 PIECE + 4 pixels. Most of the matrix is
  zero, which is still faster than moving single pixels of a few channels for every tap.

  Args:
    x: [N, n, n, C]; PIECE divides n.
    kernel: [6, 6, C, F], flipped.

  Returns:
    [N, 2 n + 4, 2 n + 4, F].
  """
  num, n, _, channels = x.shape
  features = kernel.shape[-1]
  tap = np.arange(2 * PIECE + 4) - 2 * np.arange(PIECE)[:, None]
  band = jnp.asarray(tap[..., None] == np.arange(6), x.dtype)  # [PIECE, 2 PIECE + 4, 6]
  band = jnp.einsum('pqv,uvcf->pcuqf', band, kernel).reshape(PIECE * channels, -1)
  parts = (x.reshape(-1, PIECE * channels) @ band).reshape(num, n, n // PIECE, 3, -1)
  pads = [((0, 0), (i, 2 - i), (0, 0), (0, 0)) for i in range(3)]
  rows = sum(jnp.pad(parts[:, :, :, i], pad) for i, pad in enumerate(pads))
  # [N, n + 2, n / PIECE, 2, ..] to whole rows; the last four pixels lie on the next piece's first.
  rows = rows.reshape(num, n + 2, n // PIECE, 2, -1, features).swapaxes(2, 3)
  whole = lambda pieces: pieces.reshape(num, 2 * n + 4, 2 * n, features)
  columns = lambda x, before, after: jnp.pad(x, ((0, 0), (0, 0), (before, after), (0, 0)))
  first, last = jnp.split(rows, [2 * PIECE], axis=4)
  last = jnp.pad(last, ((0, 0),) * 4 + ((0, 2 * PIECE - 4), (0, 0)))
  return columns(whole(first), 0, 4) + columns(whole(last), 2 * PIECE, 0)[:, :, : 2 * n + 4]
