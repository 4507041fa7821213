"""The one exception that means: the user's input is at fault, and this sentence says how to mend it."""


class InputError(ValueError):
    """Bad input. The message is one sentence: what is wrong, where, and what would be right."""


class AnotherRun(InputError):
    """What is kept on disk cannot be gone on from."""


class EmptySlice(InputError):
    """A slice of a volume holds nothing but zeros: on its own a mistake, among others the air beside the head."""


class NoSample(InputError):
    """What a sampler or a method gives is no image, or none of finite numbers: its own code, or its steps, are to be mended."""
