"""What every defense keeps to."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch

from gibench import chain, client, experiment, seeds
from gibench.buffers import mean_gradient
from gibench.cell import Cell
from gibench.client import Release
from gibench.defense import Batch, DefenseContext, Guarantee
from gibench.testing import subject as shared
from gibench.testing.device import NAME, simulated
from gibench.testing.subject import FaultError, UnpreparedError, settings, tensors_of, unchanged, unchanged_process
from gibench.threat_model import ThreatModel
from gibench.training import model_inputs, trainable

_MODELS = ("linear", "mlp:width=16,depth=2", "lenet", "convnet:width=4")
_BESIDE = ("dp", "fedavg:epochs=2,local_batch_size=1", "clip", "pruning", "quantize")


class Subject(shared.Subject):
    """A defense, alone."""

    kind = "defense"

    @cached_property
    def at_home(self) -> Release:
        """What the client gives at home."""
        return self.release()

    def release(self, device: str = "cpu", **changes: Any) -> Release:
        """What the client gives in the home scenario, but for some axes."""
        cell = self.cell(**changes)
        images, dtype = experiment.load(cell.dataset), torch.promote_types(getattr(torch, cell.dtype), torch.float32)
        with seeds.isolated(cell.seed, "model"):
            model = experiment.build(cell.dataset, cell.model).to(device, dtype)
        with seeds.isolated(cell.seed, "defense"):
            return client.observe(
                model,
                images,
                experiment.draw(cell),
                experiment.defenses(cell),
                ThreatModel.parse(cell.knows),
                seeds.generator(cell.seed, "defense", device),
                cell.batch_size,
            )

    def hooked(self) -> tuple[Cell, Any, Any, list[Batch], DefenseContext]:
        """The cell, and what `chain.run` is given in it: gradient, parameters, batches and context."""
        cell = self.cell()
        images, truth = experiment.load(cell.dataset), experiment.draw(cell)
        with seeds.isolated(cell.seed, "model"):
            model = experiment.build(cell.dataset, cell.model).train()
        parts = zip(torch.split(truth.images, cell.batch_size), torch.split(truth.labels, cell.batch_size), strict=True)
        batches = [Batch(model_inputs(model, images, pixels), labels) for pixels, labels in parts]
        noise = seeds.generator(cell.seed, "defense")
        context = chain.context_of([self.plugin], noise, cell.batch_size, len(images.private))
        parameters = {name: value.detach().clone() for name, value in trainable(model).items()}
        return cell, mean_gradient(model), parameters, batches, context


def update(subject: Subject) -> str:
    """Gives an update of the network's parameters, in their shapes, of finite numbers."""
    tensors = subject.at_home.observation.update.tensors
    if bad := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise FaultError(f"the update holds NaN or infinity at '{bad[0]}'")
    return f"{len(tensors)} tensors, {subject.at_home.observation.update.kind}"


def applied(subject: Subject) -> str:
    """Changes what leaves the client."""
    if subject.plugin.fault() is None and not subject.plugin.hooks:
        return "it has no hook and says so"
    there = subject.release(defense="none").observation.update.tensors
    here = subject.at_home.observation.update.tensors
    if here.keys() == there.keys() and all(shared.same(here[name], there[name]) for name in here):
        raise FaultError("the update is that without any defense: it defends nothing in its home scenario")
    return "the update is another than without it"


def seeded(subject: Subject) -> str:
    """Gives the same update from the same seed, whatever the global generators hold."""
    shared.stir(1)
    again = subject.release().observation.update.tensors
    here = subject.at_home.observation.update.tensors
    if not all(shared.same(here[name], again[name]) for name in here):
        raise FaultError("two clients of one seed send different updates: draw all noise from context.generator")
    return "twice the same"


def device(subject: Subject) -> str:
    """Works on the client's device, and leaves the update there."""
    with simulated():
        sent = subject.release(NAME).observation.update.tensors
    here = subject.at_home.observation.update.tensors
    for name, tensor in sent.items():
        if tensor.device.type != NAME:
            raise FaultError(f"the update is on the CPU at '{name}': leave it on the device of the batch")
        if not shared.same(here[name], tensor):
            raise FaultError(f"the update differs on another device at '{name}'")
    return "works on a simulated one"


def inputs(subject: Subject) -> str:
    """Leaves what it is handed as it is: parameters, batches, the update of others."""
    _, gradient, parameters, batches, context = subject.hooked()
    with seeds.isolated(0, "defense"), unchanged(parameters=parameters, batches=batches):
        chain.run([subject.plugin], gradient, parameters, batches, context)
    return "as they were"


def process(subject: Subject) -> str:
    """Leaves the process as it is: defaults, threads, global generators, folder, libraries, standard output."""
    _, gradient, parameters, batches, context = subject.hooked()
    chain.run([subject.plugin], gradient, parameters, batches, context)  # what is first imported may set something up
    with unchanged_process():
        chain.run([subject.plugin], gradient, parameters, batches, context)
    return "as it was"


def nobody(subject: Subject) -> str:
    """Takes a batch without a single example, as Poisson sampling may draw one."""
    _, gradient, parameters, batches, context = subject.hooked()
    empty = [Batch(batch.inputs[:0], batch.labels[:0], context.batch_size) for batch in batches]

    def of_any(parameters: Any, inputs: Any, labels: Any) -> Any:
        zero = {name: torch.zeros_like(value) for name, value in parameters.items()}
        return gradient(parameters, inputs, labels) if len(labels) else zero

    sent, _ = chain.run([subject.plugin], of_any, parameters, empty, context)
    if any(not bool(tensor.isfinite().all()) for _, tensor in tensors_of(sent)):
        raise FaultError("the update of no example holds NaN or infinity: divide by the public batch size")
    return "an update of finite numbers"


def models(subject: Subject) -> str:
    """Refuses in `supports` what it cannot be applied to, and fails on nothing: other networks, numbers, defenses."""
    cases = [{"model": model} for model in _MODELS] + [{"dtype": "float64"}]
    name = subject.spec.partition(":")[0]
    cases += [{"defense": f"{subject.spec}+{other}"} for other in _BESIDE if _composes(name, other)]
    for changes in cases:
        words = ", ".join(f"{axis}={value}" for axis, value in changes.items())
        try:
            subject.prepared(**changes)
        except UnpreparedError as end:
            if "skipped" not in str(end):
                raise FaultError(f"with {words}: {end}") from None
    return f"{len(cases)} cases"


def guarantee(subject: Subject) -> str:
    """Promises in full or not at all: epsilon, delta, accountant and sampling together, and costs fit for JSON."""
    *_, context = subject.hooked()
    promised = subject.plugin.guarantee(context)
    if not isinstance(promised, Guarantee):
        raise FaultError(f"`guarantee` gave {type(promised).__name__}, where a Guarantee is due")
    shared.refuse_unjsonable("its costs", dict(promised.costs))
    if promised.epsilon is None:
        return "promises nothing"
    if not (promised.accountant and promised.sampling and promised.delta is not None):
        raise FaultError("it states an epsilon without delta, accountant and sampling")
    if not (promised.epsilon >= 0 and 0 <= promised.delta < 1 and not math.isnan(promised.epsilon)):
        raise FaultError(f"epsilon {promised.epsilon} and delta {promised.delta} are no promise")
    return f"epsilon {promised.epsilon:.3g} at delta {promised.delta:g}"


CHECKS = (settings, update, applied, seeded, device, inputs, process, nobody, models, guarantee)


def _composes(name: str, other: str) -> bool:
    """Whether a chain may name the two: nothing stands in it twice, and one alone makes the update."""
    from gibench.axes import canonical_defense
    from gibench.errors import UsageError

    try:
        canonical_defense(f"{name}+{other}")
    except UsageError:
        return False
    return True
