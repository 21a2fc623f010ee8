"""Unmodified npm `sharedb` clients, stock Yjs clients and Python replicas in one text.

The clients of `sharedb` know operations and revisions, the others know the CRDT; the server is the
real one, in a process of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from test_support_tokens import token  # noqa: F401

if TYPE_CHECKING:

    pass

pytestmark = pytest.mark.node

PLAIN = "http://sharejs.org/types/text-unicode"
RICH = "http://sharejs.org/types/rich-text/v1"
