"""The one exception that means "the user can fix this"."""


class DataPrepError(Exception):
  """A missing package, a wrong raw file, a full disk or a wrong argument, told in one sentence.

  `data_prep.build` prints the sentence without a traceback and exits with code 2; every other
  exception is a defect of ours and keeps its traceback.
  """
