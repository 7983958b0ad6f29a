"""Downloads from a local server with all kinds of faults."""

import collections
import dataclasses
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.request

import pytest

from data_prep import build as command
from data_prep.core.request import RemoteFile
from data_prep.datasets import mnist
from data_prep.errors import DataPrepError
from data_prep.raw import downloads

DATA = bytes(range(256)) * 400
OTHER = bytes(reversed(DATA))
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
  """Server of `data`; the fields select its faults."""

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), Handler)
    self.data, self.tag = DATA, '"v1"'
    self.ranges = True  # whether it supports ranges
    self.shift = 0  # offset by which ranges are wrong
    self.cut = ()  # bytes after which each answer breaks off; later ones are whole
    self.codes = collections.deque()  # error codes to answer first
    self.location = None  # target of a redirect
    self.chunked = False  # chunked transfer, without a length
    self.asked = []  # header Range of each request

  @property
  def url(self):
    return f'http://127.0.0.1:{self.server_address[1]}/file'


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'

  def do_GET(self):
    server = self.server
    server.asked.append(self.headers.get('Range'))
    self.close_connection = True
    if server.codes:
      self.send_error(server.codes.popleft())
      return
    if server.location:
      self.send_response(302)
      self.send_header('Location', server.location)
      self.send_header('Content-Length', '0')
      self.end_headers()
      return
    data, start = server.data, 0
    byte_range = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
    if byte_range and server.ranges and self.headers.get('If-Range') == server.tag:
      start = int(byte_range[1]) - server.shift
      if start >= len(data):
        self.send_response(416)
        self.send_header('Content-Range', f'bytes */{len(data)}')
        self.end_headers()
        return
    self.send_response(206 if start else 200)
    if server.tag:
      self.send_header('ETag', server.tag)
    if start:
      self.send_header('Content-Range', f'bytes {start}-{len(data) - 1}/{len(data)}')
    body = data[start:]
    if server.chunked:
      self.send_header('Transfer-Encoding', 'chunked')
      body = f'{len(body):x}\r\n'.encode() + body + b'\r\n0\r\n\r\n'
    else:
      self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    if server.cut:
      body, server.cut = body[: server.cut[0]], server.cut[1:]
    self.wfile.write(body)

  def log_message(self, format, *args):
    pass


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setattr(time, 'sleep', lambda seconds: None)
  with Server() as running:
    thread = threading.Thread(target=running.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()


def file_of(server, **changes):
  plain = {'name': 'raw.bin', 'url': server.url, 'bytes': len(DATA), 'sha256': SHA256}
  return RemoteFile(**plain | changes)


def test_whole_file_is_fetched_once(server, tmp_path):
  path = downloads.fetch(file_of(server), tmp_path / 'new' / 'folder')
  assert path.read_bytes() == DATA
  assert [p.name for p in path.parent.iterdir()] == ['raw.bin']
  assert downloads.fetch(file_of(server), path.parent) == path
  assert server.asked == [None]


def test_broken_connection_is_resumed(server, tmp_path):
  server.cut = (1000, 500)
  assert downloads.fetch(file_of(server), tmp_path).read_bytes() == DATA
  assert server.asked == [None, 'bytes=1000-', 'bytes=1500-']


def test_next_call_goes_on_where_this_one_gave_up(server, tmp_path):
  server.cut = (10,) * 5
  with pytest.raises(DataPrepError, match='in 5 tries: the connection ended too early; run the sa'):
    downloads.fetch(file_of(server), tmp_path)
  assert (tmp_path / 'raw.bin.part').read_bytes() == DATA[:50]
  assert not (tmp_path / 'raw.bin').exists()
  downloads.fetch(file_of(server), tmp_path)
  assert server.asked[-1] == 'bytes=50-'
  assert (tmp_path / 'raw.bin').read_bytes() == DATA
  assert [p.name for p in tmp_path.iterdir()] == ['raw.bin']


def test_chunked_answer_that_breaks_off_is_resumed(server, tmp_path):
  server.chunked, server.cut = True, (1000,)
  assert downloads.fetch(file_of(server), tmp_path).read_bytes() == DATA
  assert len(server.asked) == 2


@pytest.mark.parametrize('tag', ['"v1"', None, 'W/"weak"'])
def test_server_without_ranges_starts_over(server, tmp_path, tag):
  server.ranges, server.tag, server.cut = False, tag, (1000,)
  assert downloads.fetch(file_of(server), tmp_path).read_bytes() == DATA
  assert server.asked == [None, 'bytes=1000-' if tag == '"v1"' else None]


def test_changed_file_is_downloaded_again(server, tmp_path):
  server.data, server.tag, server.cut = OTHER, '"v0"', (1000,) * 5
  server.ranges = False
  with pytest.raises(DataPrepError, match='5 tries'):
    downloads.fetch(file_of(server), tmp_path)
  server.data, server.tag, server.ranges = DATA, '"v1"', True
  assert downloads.fetch(file_of(server), tmp_path).read_bytes() == DATA


def test_shortened_file_is_downloaded_again(server, tmp_path):
  (tmp_path / 'raw.bin.part').write_bytes(OTHER + OTHER)
  (tmp_path / 'raw.bin.part.json').write_text(json.dumps({'tag': '"v1"'}))
  assert downloads.fetch(file_of(server), tmp_path).read_bytes() == DATA
  assert server.asked == [f'bytes={2 * len(DATA)}-', None]


def test_whole_part_needs_no_more_bytes(server, tmp_path):
  """Simulates a kill between the last byte and the renaming."""
  (tmp_path / 'raw.bin.part').write_bytes(DATA)
  (tmp_path / 'raw.bin.part.json').write_text(json.dumps({'tag': '"v1"'}))
  assert downloads.fetch(file_of(server), tmp_path).read_bytes() == DATA
  assert server.asked == [f'bytes={len(DATA)}-']


def test_part_without_a_tag_is_not_trusted(server, tmp_path):
  (tmp_path / 'raw.bin.part').write_bytes(OTHER[:100])
  assert downloads.fetch(file_of(server), tmp_path).read_bytes() == DATA
  assert server.asked == [None]


def test_range_in_the_wrong_place_is_not_appended(server, tmp_path):
  server.cut, server.shift = (1000,), 7
  assert downloads.fetch(file_of(server, sha256=None), tmp_path, unverified=True).exists()
  assert (tmp_path / 'raw.bin').read_bytes() == DATA
  assert server.asked == [None, 'bytes=1000-', None]


def test_wrong_bytes_are_deleted(server, tmp_path):
  server.data = OTHER
  with pytest.raises(DataPrepError, match=f'gave other bytes than published .* expected {SHA256}'):
    downloads.fetch(file_of(server), tmp_path)
  assert not list(tmp_path.glob('*.part')) and not (tmp_path / 'raw.bin').exists()
  server.data = DATA
  assert downloads.fetch(file_of(server), tmp_path).read_bytes() == DATA


def test_wrong_bytes_are_taken_with_a_warning(server, tmp_path, capsys):
  server.data = OTHER
  path = downloads.fetch(file_of(server), tmp_path, unverified=True)
  assert path.read_bytes() == OTHER
  assert f'[warn] raw.bin: sha256 is {hashlib.sha256(OTHER).hexdigest()}' in capsys.readouterr().out


def test_file_without_a_hash_needs_unverified(server, tmp_path, capsys):
  file = file_of(server, sha256=None)
  with pytest.raises(DataPrepError, match='nobody published a hash .* add --unverified'):
    downloads.fetch(file, tmp_path)
  assert not server.asked
  assert downloads.fetch(file, tmp_path, unverified=True).read_bytes() == DATA
  assert '[warn] raw.bin: taken unverified' in capsys.readouterr().out


def test_web_page_is_named_and_deleted(server, tmp_path):
  server.data = b'<!DOCTYPE html><title>Quota exceeded</title>'
  for _ in range(2):
    with pytest.raises(DataPrepError, match='is a web page, not data .* quota'):
      downloads.fetch(file_of(server), tmp_path)
  assert not list(tmp_path.glob('*.part'))


def test_missing_file_is_not_tried_again(server, tmp_path):
  server.codes.append(404)
  with pytest.raises(DataPrepError, match='answered 404 Not Found; it may have moved: fetch raw'):
    downloads.fetch(file_of(server), tmp_path)
  assert len(server.asked) == 1


def test_busy_server_is_tried_again(server, tmp_path):
  server.codes.extend([500, 503, 429])
  assert downloads.fetch(file_of(server), tmp_path).read_bytes() == DATA
  server.codes.extend([500] * 5)
  with pytest.raises(DataPrepError, match='5 tries: the server answered 500 Internal Server Error'):
    downloads.fetch(file_of(server, name='again'), tmp_path)


def test_no_server_at_all(server, tmp_path):
  file = file_of(server, url='http://127.0.0.1:9/file')
  with pytest.raises(DataPrepError, match='there is no connection .*refused'):
    downloads.fetch(file, tmp_path)


@pytest.mark.parametrize(
  'url', ['http://example.org/file', 'ftp://127.0.0.1/x', 'file:///etc/motd']
)
def test_other_addresses_than_https_are_refused(server, tmp_path, url):
  with pytest.raises(DataPrepError, match='is not https, so anyone on the way could change it'):
    downloads.fetch(file_of(server, url=url), tmp_path)


@pytest.mark.parametrize('url', ['http://example.org/file', 'ftp://127.0.0.1/x'])
def test_redirect_to_other_addresses_than_https_is_refused(server, tmp_path, url):
  server.location = url
  with pytest.raises(DataPrepError, match=f'leads to {url}, which is not https'):
    downloads.fetch(file_of(server), tmp_path)
  assert not (tmp_path / 'raw.bin').exists()


def test_redirect_from_https_to_http_is_refused_even_at_home():
  asked = urllib.request.Request('https://example.org/file')
  with pytest.raises(DataPrepError, match='leads to http://localhost/file, which is not https'):
    downloads._SafeRedirects().redirect_request(asked, None, 302, '', {}, 'http://localhost/file')


def test_redirect_to_a_safe_address_is_followed(server, tmp_path):
  with Server() as other:
    thread = threading.Thread(target=other.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    server.location = other.url
    assert downloads.fetch(file_of(server), tmp_path).read_bytes() == DATA
    other.shutdown()
    thread.join()


def test_small_disk_is_reported_before_the_first_byte(server, tmp_path, monkeypatch):
  usage = collections.namedtuple('usage', 'total used free')
  monkeypatch.setattr(downloads.shutil, 'disk_usage', lambda path: usage(0, 0, 5000))
  with pytest.raises(DataPrepError, match=rf'needs {len(DATA)} more bytes, but .* has 5000 free'):
    downloads.fetch(file_of(server), tmp_path)
  assert not server.asked
  (tmp_path / 'raw.bin.part').write_bytes(DATA[:-5000])
  (tmp_path / 'raw.bin.part.json').write_text(json.dumps({'tag': '"v1"'}))
  assert downloads.fetch(file_of(server), tmp_path).read_bytes() == DATA


def test_unwritable_folder_is_reported(server, tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(DataPrepError, match='cannot write .* choose another place with --out=DIR'):
    downloads.fetch(file_of(server), tmp_path / 'file')


def test_builder_downloads_what_it_needs(server, tmp_path, monkeypatch, capsys):
  """Source `auto`, nothing given, nothing prepared: the files stay for the next build."""
  server.data = b'not an idx file'
  published = hashlib.sha256(server.data).hexdigest()
  files = tuple(
    file_of(server, name=file.name, bytes=15, sha256=published) for file in mnist.ABOUT.files
  )
  monkeypatch.setattr(mnist, 'ABOUT', dataclasses.replace(mnist.ABOUT, files=files))
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  with pytest.raises(DataPrepError, match='must be an idx file'):
    command.build('mnist', tmp_path)
  assert 'mnist: fetching 4 file(s), 0 MB. Licence: LeCun and Cortes' in capsys.readouterr().out
  assert sorted(path.name for path in (tmp_path / 'downloads/mnist').iterdir()) == sorted(
    file.name for file in files
  )
