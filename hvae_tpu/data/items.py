"""Items: the examples of a view, each one record, or the records of a video clip.

Video sets store each sequence as consecutive records of equally many frames (`chunk`). The card has
the number of frames of the sequences of a split. A sequence is cut into clips of `seq_len` frames
from its first frame on; the rest at its end is dropped. So the number of a clip tells its records,
and only their frames are decoded.
"""

import dataclasses

import numpy as np

from hvae_tpu.data.datasets import Dataset
from hvae_tpu.data.records import Batch, Records
from hvae_tpu.errors import UserError


@dataclasses.dataclass(frozen=True)
class Stills:
  """Examples of one record each; `numbers` are their positions in the split, int64 [size]."""

  numbers: np.ndarray

  def __len__(self) -> int:
    return len(self.numbers)

  def keys(self, items: np.ndarray) -> np.ndarray:
    """Returns a number for each of these examples, unique in the split."""
    return self.numbers[items]

  def interleaved(self) -> 'Stills':
    """Returns the same items; see `Clips`."""
    return self

  def read(self, records: Records, items: np.ndarray) -> Batch:
    """Reads these examples, in this order."""
    return records.read(self.numbers[items])


@dataclasses.dataclass(frozen=True)
class Clips:
  """Examples that are clips of a sequence.

  Attributes:
    first: int64 [size], record with the first frame of each clip.
    offset: int64 [size], position of that frame in its record.
    last: int64 [size], last record of the sequence.
    start: int64 [size], position of that frame in the sequence.
    seq_len: frames of a clip.
    chunk: frames of a record.
  """

  first: np.ndarray
  offset: np.ndarray
  last: np.ndarray
  start: np.ndarray
  seq_len: int
  chunk: int

  def __len__(self) -> int:
    return len(self.first)

  def keys(self, items: np.ndarray) -> np.ndarray:
    """Returns the position in the split, in frames, of the first frame of each of these clips."""
    return self.first[items] * self.chunk + self.offset[items]

  def interleaved(self) -> 'Clips':
    """Returns the first clips of all sequences, then the second clips, and so on."""
    order = np.argsort(self.start, kind='stable')
    arrays = {name: getattr(self, name)[order] for name in ('first', 'offset', 'last', 'start')}
    return dataclasses.replace(self, **arrays)

  def read(self, records: Records, items: np.ndarray) -> Batch:
    """Reads these clips, in this order: `video` is [N, seq_len, H, W, C]."""
    most = -(-(int(self.offset[items].max()) + self.seq_len) // self.chunk)
    numbers = self.first[items, np.newaxis] + np.arange(most)
    fields = records.read(np.minimum(numbers, self.last[items, np.newaxis]).reshape(-1))
    batch = {name: array[::most] for name, array in fields.items()}
    if 'start' in batch:
      batch['start'] = self.start[items].astype(batch['start'].dtype)
    if 'video' in fields:
      video = fields['video']  # [N * most, chunk, H, W, C]
      video = video.reshape(len(items), most * self.chunk, *video.shape[2:])
      batch['video'] = self._trim(video, self.offset[items])
    return batch

  def _trim(self, video: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Cuts the frames of each clip out of the frames of its records."""
    if (offset == offset[0]).all():
      return video[:, offset[0] : offset[0] + self.seq_len]
    return np.stack([v[o : o + self.seq_len] for v, o in zip(video, offset, strict=True)])


def items_of(dataset: Dataset, view: str, seq_len: int = 0) -> Stills | Clips:
  """Returns the examples of a view.

  Args:
    dataset: the opened data set.
    view: name of the view.
    seq_len: frames of a clip (video only); 0: whole sequences.

  Raises:
    UserError: no such view; sequences shorter than `seq_len`, or of unequal lengths for 0.
  """
  numbers = dataset.indices(view)
  layout = dataset.card.get('details', {}).get('video')
  if layout is None:
    return Stills(numbers)
  chunk = layout['chunk']
  split = dataset.view(view)['split']
  frames = np.atleast_1d(layout['frames'][split]).astype(np.int64)
  count = dataset.card['splits'][split]['count']
  if len(frames) == 1:  # all sequences are of one length
    frames = np.repeat(frames, -(-count // -(-int(frames[0]) // chunk)))
  ends = np.cumsum(-(-frames // chunk))  # first record after each sequence
  sequences = np.unique(np.searchsorted(ends, numbers, side='right'))
  sequences = sequences[ends[sequences] <= count]  # `--limit` may have cut the last one off
  if not len(sequences):
    raise UserError(
      f'view {view!r} of {dataset.card["name"]} holds no whole sequence; build it anew with a '
      'larger --limit, or without'
    )
  return _cut(dataset, view, frames, ends, sequences, seq_len, chunk)


def _cut(
  dataset: Dataset,
  view: str,
  frames: np.ndarray,
  ends: np.ndarray,
  sequences: np.ndarray,
  seq_len: int,
  chunk: int,
) -> Clips:
  """Cuts sequences into clips.

  Args:
    dataset, view, seq_len: see `items_of`.
    frames: int64, frames of every sequence of the split.
    ends: int64, first record after every sequence of the split.
    sequences: int64, numbers of the sequences of the view.
    chunk: frames of a record.
  """
  lengths = frames[sequences]
  if not seq_len and len(np.unique(lengths)) > 1:
    raise UserError(
      f'the sequences of view {view!r} of {dataset.card["name"]} have {lengths.min()} to '
      f'{lengths.max()} frames; choose a length with config.data.seq_len or eval_seq_len'
    )
  seq_len = seq_len or int(lengths[0])
  clips = lengths // seq_len
  if not clips.any():
    raise UserError(
      f'clips of {seq_len} frames (config.data.seq_len or eval_seq_len, open_loop.seq_len) are '
      f'longer than the {lengths.max()} frames of the sequences of view {view!r} of '
      f'{dataset.card["name"]}; give a smaller length'
    )
  begins = ends - -(-frames // chunk)
  start = np.concatenate([np.arange(n) * seq_len for n in clips])
  return Clips(
    first=np.repeat(begins[sequences], clips) + start // chunk,
    offset=start % chunk,
    last=np.repeat(ends[sequences] - 1, clips),
    start=start,
    seq_len=seq_len,
    chunk=chunk,
  )
