"""What the environment says about the archive."""

from __future__ import annotations

import pytest

from cloudai.archive import LIMIT
from cloudai.core.errors import InvalidInput
from cloudai.service import log_limit


def test_the_limit_of_a_log_is_a_size():
    assert log_limit({}) == log_limit({"CLOUDAI_LOG_LIMIT": ""}) == LIMIT
    assert log_limit({"CLOUDAI_LOG_LIMIT": "200m"}) == 200 * 2**20


@pytest.mark.parametrize("text", ["lots", "-1g", "10k", "0"])
def test_a_limit_that_is_none_is_refused(text):
    with pytest.raises(InvalidInput, match="CLOUDAI_LOG_LIMIT"):
        log_limit({"CLOUDAI_LOG_LIMIT": text})
