"""The exception for problems that the user can fix."""


class DataPrepError(Exception):
  """A missing package, a wrong raw file, a full disk or a wrong argument, in one sentence.

  `data_prep.build` prints the sentence without a traceback and exits with code 2. Any other
  exception is a bug and keeps its traceback.
  """
