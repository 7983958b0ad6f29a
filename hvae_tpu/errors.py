"""Errors that the user can fix, and errors that may pass when the command is started again."""


class UserError(Exception):
  """A mistake in a config, a path or a file, described in one sentence.

  The sentence names the config key, file or shape, the expected and the actual value, and the
  remedy. `main.py` prints it without a traceback and exits with its code. Every other exception is
  a defect of this package and keeps its traceback.
  """

  exit_code = 2


class TransientError(UserError):
  """A failure that may pass when the same command is started again."""

  exit_code = 75  # EX_TEMPFAIL of sysexits.h
