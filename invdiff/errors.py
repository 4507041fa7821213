"""The one exception that means: the user's input is at fault, and this sentence says how to mend it."""


class InputError(ValueError):
    """Bad input. The message is one sentence: what is wrong, where, and what would be right."""
