"""A bucket that is a folder: `fake_bucket.py FOLDER FLAGS OF hvae_tpu.main...`.

`gs://bucket/a` is FOLDER/bucket/a for `etils.epath`, and over HTTP for TensorStore, which writes
the arrays of checkpoints: a server answers the few requests of the JSON interface that it makes.
"""

import http.server
import json
import os
import pathlib
import sys
import threading
import types
import urllib.parse

from etils.epath import backend, gpath


class FolderBackend:
  """The file operations of epath, with gs://... mapped into a folder."""

  def __init__(self, root: pathlib.Path):
    self._root = root

  def __getattr__(self, name: str):
    method = getattr(backend.os_backend, name)

    def call(*args, **kwargs):
      args = [self._locate(a) if str(a).startswith('gs://') else a for a in args]
      if name in ('open', 'rename', 'replace', 'copy'):  # objects need no folder
        pathlib.Path(args[0 if name == 'open' else 1]).parent.mkdir(parents=True, exist_ok=True)
      result = method(*args, **kwargs)
      if name == 'glob':
        return [f'gs://{pathlib.Path(path).relative_to(self._root)}' for path in result]
      return result

    return call

  def _locate(self, path) -> str:
    return str(self._root / str(path).removeprefix('gs://'))


class Handler(http.server.BaseHTTPRequestHandler):
  """Objects by name: read, write, list, delete. Generations are times of change."""

  root: pathlib.Path
  protocol_version = 'HTTP/1.1'

  def log_message(self, *_):
    pass

  def parts(self) -> tuple[pathlib.Path, dict[str, str]]:
    """Returns the path of the bucket or object, and the query."""
    url = urllib.parse.urlsplit(self.path)
    query = {k: v[-1] for k, v in urllib.parse.parse_qs(url.query).items()}
    bucket, _, name = url.path.partition('/b/')[2].partition('/o')
    name = query.get('name') or urllib.parse.unquote(name.lstrip('/'))
    return self.root / bucket / name, query

  def reply(self, code: int, body: bytes = b'', kind: str = 'application/json', **headers) -> None:
    self.send_response(code)
    for key, value in {'Content-Type': kind, 'Content-Length': len(body), **headers}.items():
      self.send_header(key.replace('_', '-'), str(value))
    self.end_headers()
    self.wfile.write(body)

  def about(self, path: pathlib.Path) -> dict:
    stat = path.stat()
    bucket, _, name = path.relative_to(self.root).as_posix().partition('/')
    generation = str(stat.st_mtime_ns)
    fields = {'name': name, 'bucket': bucket, 'size': str(stat.st_size), 'generation': generation}
    return fields | {'metageneration': '1', 'updated': '2000-01-01T00:00:00Z'}

  def do_GET(self):
    path, query = self.parts()
    if '/o/' not in self.path:
      return self.list(path, query)
    if not path.is_file():
      return self.reply(404, b'{}')
    about = self.about(path)
    if query.get('ifGenerationNotMatch') == about['generation']:
      return self.reply(304)
    if query.get('alt') != 'media':
      return self.reply(200, json.dumps(about).encode())
    body, code, headers = path.read_bytes(), 200, {'x_goog_generation': about['generation']}
    if asked := self.headers.get('Range'):
      first, _, last = asked.removeprefix('bytes=').partition('-')
      start, stop = (int(first), int(last or len(body) - 1) + 1) if first else (-int(last), None)
      headers['Content_Range'] = f'bytes {start}-{(stop or len(body)) - 1}/{len(body)}'
      body, code = body[start:stop], 206
    self.reply(code, body, 'application/octet-stream', **headers)

  def list(self, bucket: pathlib.Path, query: dict[str, str]) -> None:
    files = sorted(p for p in bucket.rglob('*') if p.is_file())
    names = [p.relative_to(bucket).as_posix() for p in files]
    prefix, delimiter = query.get('prefix', ''), query.get('delimiter')
    names = [n for n in names if n.startswith(prefix)]
    prefixes = set()
    if delimiter:
      cut = {n: n[len(prefix) :].partition(delimiter) for n in names}
      prefixes = {prefix + a + delimiter for a, separator, _ in cut.values() if separator}
      names = [n for n in names if not cut[n][1]]
    items = [self.about(bucket / n) for n in names]
    self.reply(200, json.dumps({'items': items, 'prefixes': sorted(prefixes)}).encode())

  def do_POST(self):
    path, query = self.parts()
    body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
    if query.get('ifGenerationMatch') == '0' and path.exists():
      return self.reply(412, b'{}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    self.reply(200, json.dumps(self.about(path)).encode())

  def do_DELETE(self):
    path, _ = self.parts()
    path.unlink(missing_ok=True)
    self.reply(204)


def install(root: pathlib.Path) -> None:
  """Gives this process the bucket; must come before the first use of either library."""
  Handler.root = root
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  os.environ['TENSORSTORE_GCS_HTTP_URL'] = f'http://127.0.0.1:{server.server_port}'
  os.environ['GOOGLE_AUTH_TOKEN_FOR_TESTING'] = 'token'
  bucket = types.SimpleNamespace(hierarchical_namespace_enabled=False)
  client = types.SimpleNamespace(get_bucket=lambda name: bucket)
  sys.modules['google.cloud.storage'] = types.SimpleNamespace(Client=lambda: client)
  gpath._is_tf_installed = lambda: False
  gpath._PREFIX_TO_BACKEND['gs'] = FolderBackend(root)


if __name__ == '__main__':
  install(pathlib.Path(sys.argv[1]))
  from hvae_tpu import main

  sys.exit(main.main([sys.argv[0], *sys.argv[2:]]))
