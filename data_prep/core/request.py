"""What can be built, and what the user asks for: what commands and builders share."""

import dataclasses
import pathlib

SOURCES = ('auto', 'local', 'tfds', 'download')


@dataclasses.dataclass(frozen=True)
class RemoteFile:
  """A published file. `sha256` is None where nobody published it; then its bytes go unchecked."""

  name: str
  url: str
  bytes: int | None = None
  sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class About:
  """What `--list` shows of a data set, and where its raw files come from.

  Attributes:
    records: what a record holds, in words: `32x32x3`.
    splits: splits and views with their counts, in words.
    built: size on disk after building, in words.
    licence: of the raw data, in words.
    samples_publishable: may pictures made from it stand in public documents?
    files: what `--source=download` fetches; () where no address works.
    tfds: name in the catalogue of tensorflow-datasets, '' if it is not there.
    fetch: how to get the raw files by hand, a clause without a full stop: `get ... from ...`.
    variants: values of `--variant` that the builder knows.
    asks_first: larger than 10 GB or behind an agreement: never downloaded unasked.
    embedded: made from an installed package or from nothing; `--source` and `--raw` do not apply.
  """

  records: str
  splits: str
  built: str
  licence: str
  samples_publishable: bool
  files: tuple[RemoteFile, ...] = ()
  tfds: str = ''
  fetch: str = ''
  variants: tuple[str, ...] = ()
  asks_first: bool = False
  embedded: bool = False

  @property
  def sources(self) -> tuple[str, ...]:
    """The values of `--source` that can work, apart from `auto`."""
    if self.embedded:
      return ('embedded',)
    return ('local', *(['tfds'] if self.tfds else []), *(['download'] if self.files else []))


@dataclasses.dataclass(frozen=True)
class Request:
  """One call of the command, as a builder sees it.

  Attributes:
    name: of the data set.
    downloads: folder that downloaded files are kept in.
    source: one of `SOURCES`.
    raw: the user's own files and folders; given, they are the source.
    variant: which of several sets or forms of one name is meant; None if the user did not say.
    unverified: take files although their bytes are not the published ones, or nobody published a
      hash.
  """

  name: str
  downloads: pathlib.Path
  source: str = 'auto'
  raw: tuple[pathlib.Path, ...] = ()
  variant: str | None = None
  unverified: bool = False
