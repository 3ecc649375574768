"""A trained model behind HTTP, without torch."""

from typing import Literal

Contract = Literal["gaiic", "v1"]
"""What a server is asked by: the contest's form of POST /tccapi, or our JSON of POST /v1/match."""
