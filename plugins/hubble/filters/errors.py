"""What is wrong with a request."""

from __future__ import annotations

from axoneme.core.errors import AxonemeError


class RequestError(AxonemeError):
    """A request that cannot be answered: a filter, a field mask or a combination that makes no sense.

    :ivar invalid_argument: the code to answer with is INVALID_ARGUMENT; otherwise UNKNOWN, as Cilium answers.
    """

    invalid_argument = False


class CombinationError(RequestError):
    """Fields of a request that exclude each other."""

    invalid_argument = True
