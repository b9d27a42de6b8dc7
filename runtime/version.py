"""The runner's version, told in the ``boot`` frame. An image is identified by the folder's content, not by this."""

RUNNER = "0.2.0"
