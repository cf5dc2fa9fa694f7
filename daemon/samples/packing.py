"""Best-fit-decreasing packing of whole samples into sequences."""

from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put every index into exactly one bin, each bin at most `capacity` long: longest first, into the tightest fit.

    O(n log n): open bins lie in one stack per remaining space, and the stacks that are not empty are the bits of an
    integer, so that the tightest fit is the lowest bit at or above the length.

    Raises:
        ValueError: a length is above the capacity.
    """
    bins: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[index]
        if length > capacity:
            raise ValueError(f"sample {index} is {length} tokens long, above the capacity of {capacity}")
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            chosen = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
            bins[chosen].append(index)
        else:
            room, chosen = capacity, len(bins)
            bins.append([index])
        by_room[room - length].append(chosen)
        rooms |= 1 << (room - length)
    return bins


def density(lengths: Sequence[int], num_bins: int, capacity: int) -> float:
    """Return the share of the bins' places that hold a token."""
    return sum(lengths) / max(1, num_bins * capacity)
