"""Downloads of published files, with progress, resumption and checks."""

import contextlib
import http.client
import json
import pathlib
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request

from tqdm import tqdm

from data_prep.core import progress
from data_prep.core.request import RemoteFile
from data_prep.core.sources import sha256_file
from data_prep.errors import DataPrepError
from data_prep.raw import recognise

_CHUNK = 2**20  # bytes
_TIMEOUT = 60  # seconds without a byte
_TRIES = 5
_LOCAL = ('127.0.0.1', 'localhost', '::1')


def fetch(file: RemoteFile, folder: pathlib.Path, unverified: bool = False) -> pathlib.Path:
  """Downloads a file to `folder` unless it exists, and returns its path.

  The file is named `<name>.part` until it is whole and checked. A later call resumes it, if the
  server supports ranges and still has the same file. A web page or other bytes than the published
  ones are deleted.

  Args:
    file: the file to download.
    folder: folder to write to.
    unverified: accept the file although its hash differs or no hash was published.

  Raises:
    DataPrepError: the address is not https, there is no hash and not `unverified`, the connection
      or the server fails, or the bytes are a web page or not the published ones.
  """
  _check_address(file)
  path = folder / file.name
  if path.exists():
    return path
  if file.sha256 is None and file.unpacked_sha256 is None and not unverified:
    raise DataPrepError(
      f'nobody published a hash of {file.url}, so its bytes cannot be checked; '
      'add --unverified to take it all the same'
    )
  part = path.with_name(path.name + '.part')
  try:
    folder.mkdir(parents=True, exist_ok=True)
    _check_space(file, part)
    _receive_all(file, part)
    _check_content(file, part, unverified)
    part.rename(path)
  except DataPrepError:
    raise
  except OSError as error:
    raise DataPrepError(
      f'cannot write {part}: {error}; free some space or choose another place with --out=DIR'
    ) from error
  _tag_file(part).unlink(missing_ok=True)
  return path


def _check_address(file: RemoteFile) -> None:
  if _is_safe(file.url):
    return
  raise DataPrepError(
    f'{file.url} is not https, so anyone on the way could change it; fetch it yourself and give '
    'it with --raw=PATH'
  )


def _is_safe(url: str) -> bool:
  address = urllib.parse.urlsplit(url)
  return address.scheme == 'https' or address.scheme == 'http' and address.hostname in _LOCAL


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
  """Follows redirects, but never to an address where others could change the bytes."""

  def redirect_request(self, req, fp, code, msg, headers, newurl):
    if not _is_safe(newurl) or req.type == 'https' and not newurl.startswith('https:'):
      raise DataPrepError(
        f'{req.full_url} leads to {newurl}, which is not https; fetch the file yourself and give '
        'it with --raw=PATH'
      )
    return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = urllib.request.build_opener(_SafeRedirects)


def _check_space(file: RemoteFile, part: pathlib.Path) -> None:
  have = part.stat().st_size if part.exists() else 0
  free = shutil.disk_usage(part.parent).free
  if file.bytes is not None and file.bytes - have > free:
    raise DataPrepError(
      f'{file.name} needs {file.bytes - have} more bytes, but {part.parent} has {free} free; free '
      'some space or choose another place with --out=DIR'
    )


def _receive_all(file: RemoteFile, part: pathlib.Path) -> None:
  """Downloads all bytes to `part`; retries if the connection ends early."""
  for attempt in range(_TRIES):
    if attempt:
      time.sleep(min(2**attempt / 4, 5))
    try:
      if _receive(file, part):
        return
      problem = 'the connection ended too early'
    except urllib.error.HTTPError as error:
      if error.code < 500 and error.code != 429:
        raise DataPrepError(
          f'{file.url} answered {error.code} {error.reason}; it may have moved: fetch '
          f'{file.name} elsewhere and give it with --raw=PATH'
        ) from error
      problem = f'the server answered {error.code} {error.reason}'
    except urllib.error.URLError as error:
      problem = f'there is no connection ({error.reason})'
    except (TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
      problem = f'the connection broke ({error})'
  raise DataPrepError(
    f'{file.url} could not be fetched in {_TRIES} tries: {problem}; run the same command again to '
    'go on from there'
  )


def _receive(file: RemoteFile, part: pathlib.Path) -> bool:
  """Sends one request; returns whether the file is whole."""
  have = part.stat().st_size if part.exists() else 0
  tag = _read_tag(part) if have else None
  have = have if tag else 0  # without a tag, the first bytes may belong to another version
  request = urllib.request.Request(file.url, headers={'User-Agent': 'hvae_tpu data_prep'})
  if have:
    request.add_header('Range', f'bytes={have}-')
    request.add_header('If-Range', tag)
  try:
    response = _opener.open(request, timeout=_TIMEOUT)
  except urllib.error.HTTPError as error:
    if error.code == 416 and have:  # nothing is left, or the file has become shorter
      if error.headers.get('Content-Range') == f'bytes */{have}':
        return True
      part.unlink()
      return False
    raise
  with response:
    if response.status != 206:
      have = 0
      part.unlink(missing_ok=True)  # before the tag changes, which describes the bytes in `part`
    elif not response.headers.get('Content-Range', '').startswith(f'bytes {have}-'):
      part.unlink()
      return False
    _write_tag(part, response.headers.get('ETag') or response.headers.get('Last-Modified'))
    length = response.headers.get('Content-Length')
    total = have + int(length) if length is not None else None
    received = _copy(response, part, have, total, file.name)
  return total is None or received == total


def _copy(response, part: pathlib.Path, have: int, total: int | None, name: str) -> int:
  """Appends the response to `part` behind `have` bytes; returns the new size."""
  bar = tqdm(desc=name, initial=have, total=total, unit='B', unit_scale=True, **progress.QUIET)
  with bar, open(part, 'r+b' if have else 'wb') as output:
    output.seek(have)
    while data := response.read(_CHUNK):
      output.write(data)
      bar.update(len(data))
    return output.tell()


def _check_content(file: RemoteFile, part: pathlib.Path, unverified: bool) -> None:
  try:
    recognise.refuse_page(part)
    _check_bytes(file, part, unverified)
  except DataPrepError:
    part.unlink()  # resuming wrong bytes would fail forever
    raise


def _check_bytes(file: RemoteFile, part: pathlib.Path, unverified: bool) -> None:
  if file.sha256 is None and file.unpacked_sha256:
    return  # the builder compares what it unpacks
  if file.sha256 is None:
    print(f'[warn] {file.name}: taken unverified, as nobody published a hash of it')
    return
  sha256 = sha256_file(part)
  if sha256 == file.sha256:
    return
  if unverified:
    print(f'[warn] {file.name}: sha256 is {sha256}, published is {file.sha256}')
    return
  raise DataPrepError(
    f'{file.url} gave other bytes than published (sha256 {sha256}, expected {file.sha256}); they '
    'were deleted: run the command again, or fetch the file elsewhere and give it with --raw=PATH'
  )


def _tag_file(part: pathlib.Path) -> pathlib.Path:
  return part.with_name(part.name + '.json')


def _read_tag(part: pathlib.Path) -> str | None:
  with contextlib.suppress(OSError, ValueError, KeyError):
    return json.loads(_tag_file(part).read_text())['tag']
  return None


def _write_tag(part: pathlib.Path, tag: str | None) -> None:
  """Stores the server's tag of this version of the file; weak tags do not allow ranges."""
  if tag is None or tag.startswith('W/'):
    _tag_file(part).unlink(missing_ok=True)
  else:
    _tag_file(part).write_text(json.dumps({'tag': tag}))
