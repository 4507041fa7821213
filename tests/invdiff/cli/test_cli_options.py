"""The bar that several commands show."""

from invdiff.cli.options import progress_bar


def test_a_bar_that_is_full_says_that_there_is_more_to_come():
    bar = progress_bar("steps")
    line = bar.add_task("sampler", total=6, completed=5)
    assert ":" in str(bar.columns[-1].render(bar.tasks[0]))         # the time that remains
    bar.update(line, completed=6)
    assert str(bar.columns[-1].render(bar.tasks[0])) == "finishing"
