"""Which neurons of a layer are copies of one another: a certificate counts what it rests on over distinct ones only.

An activation pattern has one sign for each neuron, and a neuron whose weights and bias are a multiple of another's has
the same sign or the opposite one for every image. So copies, scaled, negated or nearly so, bear one witness: they add
no zero, no vote and no equation to those of the first. A layer of low rank has few neurons in this sense however wide
it is, since there is not room for many that differ.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .chunks import chunks
from .products import row_norms

_PIECE = 2**17  # bytes a neuron: of pieces that small, half of all pairs are compared and not each of them twice
_COPY = 0.9  # cosine from which two neurons are one; those of a layer as it is built or trained are far below it


def distinct_neurons(weight: Tensor, bias: Tensor) -> Tensor:
    """The number of the distinct neuron that each neuron is, or is a copy of: `[m]`, from 0 on without gaps.

    A neuron is distinct where no earlier one is its copy; a copy belongs to the distinct one that it is nearest to.
    Under white inputs the cosine is the correlation of the pre-activations.

    Args:
        weight: `[m, n]`.
        bias: `[m]`.
    """
    lengths = row_norms(weight).hypot(bias.double())
    constant = lengths == 0  # like any other neuron without weights
    bias, lengths = bias.masked_fill(constant, 1.0), lengths.masked_fill(constant, 1.0).to(weight)

    def cosines(of: slice | Tensor, others: slice) -> Tensor:
        """Their size, `[o, s]`; of the weights, which may be large, no copy is made but of a piece."""
        unit, offset = weight[of] / lengths[of, None], bias[of] / lengths[of]
        return torch.addmm(torch.outer(offset, bias[others]), unit, weight[others].T).abs() / lengths[others]

    m = len(weight)
    number = torch.arange(m, device=weight.device)
    first = torch.ones(m, dtype=torch.bool, device=weight.device)
    for part in chunks(m, max(8 * m, _PIECE), weight.device):
        alike = cosines(part, slice(part.stop)) >= _COPY
        first[part] = ~(alike & (number[: part.stop] < number[part, None])).any(dim=1)
    numbers = torch.empty_like(number)
    numbers[first] = torch.arange(int(first.sum()), device=weight.device)
    copies = number[~first]
    for part in chunks(len(copies), max(8 * m, _PIECE), weight.device) if len(copies) else ():
        nearest = cosines(copies[part], slice(None)).masked_fill(~first, -1.0).argmax(dim=1)
        numbers[copies[part]] = numbers[nearest]
    return numbers
