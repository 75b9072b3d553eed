"""Heights and widths of what kernels take at once."""


def power_of_two(number: int) -> int:
    """The smallest that is not less than a number, and at least 1."""
    return 1 << max(0, number - 1).bit_length()
