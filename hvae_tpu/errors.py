"""The one exception that means "the user can fix this"."""


class UserError(Exception):
  """A mistake in a config, a path or a file, told in one sentence.

  The sentence names the config key, file or shape, what was expected, what was found, and the
  remedy. `main.py` prints it without a traceback and exits with code 2; every other exception is a
  defect of ours and keeps its traceback.
  """
