"""The first difference of two sets of settings."""

import pytest

from invdiff.differences import LONGEST, first_difference


@pytest.mark.parametrize(("before", "now", "said"), [
    ({"a": 1}, {"a": 1.0}, None),
    ({"a": None}, {}, None),
    ({"a": 1, "b": {"c": [1]}}, {"a": 1, "b": {"c": [2]}}, "b.c: [1], and now [2]"),
    ({"b": {"c": 1}}, {"b": 3}, 'b: {"c": 1}, and now 3'),
    ({}, {"new": "x"}, 'new: null, and now "x"'),
    ({"loss": {"rate": 1, "kind": "v"}}, {"loss": {"rate": 2, "kind": "edm"}}, 'loss.kind: "v", and now "edm"'),
    ({"a": "x" * 200}, {"a": 1}, f'a: "{"x" * (LONGEST - 4)}..., and now 1'),
])
def test_the_first_difference_is_named_with_both_values(before, now, said):
    assert first_difference(before, now) == said
