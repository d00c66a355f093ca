"""Computation graph: does anything stand beside the trained weights that reads the input and changes the answer?

The places where published graph backdoors differ from trained nets: Goldwasser, Kim, Vaikuntanathan, Zamir: Planting
Undetectable Backdoors in Machine Learning Models, 2022, arXiv 2204.06974 (what they hide is a gate); Bober-Irizar,
Shumailov, Zhao, Mullins, Papernot: Architectural Backdoors in Neural Networks, 2022, arXiv 2206.07840; Langford,
Shumailov, Zhao, Mullins, Papernot: Architectural Neural Backdoors from First Principles, 2024, arXiv 2402.06957; and
edits of ONNX files. What stands in the weights alone it cannot see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence, Set
from typing import final

from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import Inconclusive
from assay.core.finding import Evidence, Finding, GraphNode, Outcome
from assay.core.model import Artifact, Modality, TextSpec
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.graph.activations import same_for_all
from assay.detectors.graph.graph_diff import added
from assay.detectors.graph.read import Read, Unread, own, read_graph, runs_a_file
from assay.detectors.graph.repeat_run import apart, jumping, settled
from assay.detectors.graph.rules import CHOOSES, COMPARES, RULES, WHOLE, Gadget, gadgets_of, keys_of, without_gradient
from assay.detectors.requirement import Requirement
from assay.graphs.data_access import TensorRead, find_tensor_reads
from assay.graphs.dependence import has_trained_weights
from assay.graphs.ir import ComputationGraph

WATCHED = 32
"""Clean samples on which branches are watched."""

FEWEST_WATCHED = 16
"""With fewer, that a branch does the same for all of them says little."""

ENOUGH_KEYS = 2
"""Constants of ciphers; a single one may be chance."""

DECIDE = frozenset({"D3", "R4"})
"""Rules by which a way that joins the net is a switch: it does nothing on clean samples, or is one by its steepness."""

ODD = COMPARES | WHOLE | CHOOSES | {"Pow", "Exp"}
"""Operators that are worth a word where the reference has fewer; others come and go when a model is exported."""

SHOWN = 24
"""Nodes that are drawn."""


@final
class Graph(Detector):
    """The number of rules that the graph breaks.

    A proof is what changes the answer itself, or is a switch.
    """

    name = "graph"
    title = "parts of the computation that read the input beside the trained weights"
    needs = Requirement.NONE
    modality = None
    needs_null = False
    reads_computation = True
    on_variants = False

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        """Raises Inconclusive where the computation cannot be read."""
        x = clean.x[:WATCHED] if len(clean) else artifact.inputs.blank(2)
        taken = () if runs_a_file(artifact.module) else find_tensor_reads(own(artifact.module), x)
        if by_hand := next((place for place in taken if place.whole), None):
            return self._of_code(by_hand)  # tracing thousands of numbers one by one takes minutes, and fails then
        read = read_graph(artifact.module, x)
        if isinstance(read, Unread):  # one number of the input, as its largest value, honest code asks for too
            out = [place.where for place in taken if not place.decides]
            asked = f"; its code asks for values of the input, at {out[0]}" if out else ""
            raise Inconclusive(f"the graph cannot be read: {read.reason}{asked}")
        progress(0.5)
        gadgets = gadgets_of(read.flow, markers=_markers(artifact))
        keys = keys_of(read.flow)
        rules = {rule for gadget in gadgets for rule in gadget.rules} | self._by_itself(read.flow, artifact, keys)
        numbers: dict[str, float | int | str] = {"nodes": len(read.flow.nodes), "gadgets": len(gadgets)}
        if artifact.modality is Modality.IMAGE and not gadgets and (hidden := _hidden(taken, read.flow)):
            rules |= {"D5"}
            numbers["compared at"] = hidden
        if len(clean) >= FEWEST_WATCHED:
            more, unasked = _watched(read, artifact, gadgets, x, seed=seed)
            rules |= more
            numbers |= {"not tested": ", ".join(unasked)} if unasked else {}
        if artifact.reference is not None:
            new, numbers["beside the reference"] = _beside(read.flow, artifact.reference, x)
            rules |= {"R9"} if new else set()
        progress(1.0)
        return self._judged(read.flow, gadgets, keys, rules, numbers)

    def _by_itself(self, flow: ComputationGraph, artifact: Artifact, keys: frozenset[int]) -> set[str]:
        """The rules that the graph breaks as a whole."""
        rules = {"R5"} if len(keys) >= ENOUGH_KEYS else set()
        # Words have no gradient; what is made of them has.
        return rules | ({"R10"} if artifact.modality is Modality.IMAGE and without_gradient(flow) else set())

    def _judged(
        self,
        flow: ComputationGraph,
        gadgets: Sequence[Gadget],
        keys: frozenset[int],
        rules: Set[str],
        numbers: dict[str, float | int | str],
    ) -> Finding:
        numbers |= {rule: RULES[rule] for rule in sorted(rules)}
        drawn: tuple[GraphNode, ...] = ()
        proof = ""
        if gadgets:
            worst = max(gadgets, key=lambda gadget: (len(gadget.rules), len(gadget.chain.nodes)))
            way = [*worst.chain.nodes[-SHOWN:]]
            numbers["joins the net at"] = f"{worst.join.op} {worst.join.name}"
            drawn = tuple(GraphNode(node.op, node.name, node.inputs, node.outputs) for node in way)
            said = (
                f"its graph reads the input along {len(worst.chain.nodes)} operators without trained weights, from "
                f"{way[0].op} {way[0].name} to {worst.join.op} {worst.join.name}, and what they say "
                f"{'replaces the answer' if worst.replaces else 'joins the net behind its first weights'}"
            )
            # A hand-made feature that joins the others, and is no switch, may have its reasons: it is shown, no more.
            proof = said if has_trained_weights(flow) and (worst.replaces or rules & DECIDE) else ""
            numbers["what it does"] = said
        elif "R5" in rules:
            proof = f"its graph holds {len(keys)} constants of a cipher or a hash"
        evidence = Evidence(numbers=numbers, graph=drawn)
        outcome = Outcome.PROVEN if proof else Outcome.CHECKED
        return Finding(self.name, outcome, reason=proof, score=float(len(rules)), evidence=evidence)

    def _of_code(self, place: TensorRead) -> Finding:
        """Of a net whose code takes the input itself in hand at ``place``."""
        numbers: dict[str, float | int | str] = {"R2": RULES["R2"], "taken out at": place.where}
        proof = f"its code takes the input out of the net and decides by it, at {place.where}"
        return Finding(self.name, Outcome.PROVEN, reason=proof, score=1.0, evidence=Evidence(numbers=numbers))


def _markers(artifact: Artifact) -> frozenset[int] | None:
    """The tokens that every text has; None of a model of pictures."""
    inputs = artifact.inputs
    return frozenset({inputs.start, inputs.end, inputs.pad}) if isinstance(inputs, TextSpec) else None


def _watched(
    read: Read, artifact: Artifact, gadgets: Sequence[Gadget], x: Tensor, *, seed: int
) -> tuple[frozenset[str], tuple[str, ...]]:
    """The rules that it breaks on clean samples ``x`` (N, ...), and those whose test could not be made."""
    net = artifact.module
    watched = {gadget.gate for gadget in gadgets} - set(read.flow.sources)
    inner = sorted(watched & {value for node in read.model.graph.node for value in node.output})
    tests: dict[str, Callable[[], object]] = {}
    if inner:
        tests["D3"] = lambda: same_for_all(read.model, inner, read.x, batch=read.batch)
    if settled(net, x[:2]):
        if artifact.modality is Modality.IMAGE:
            tests["D1"] = lambda: jumping(net, x, seed=seed)
        if not runs_a_file(net):
            tests["D5"] = lambda: apart(net, read)
    broken, unasked = set(), []
    for rule, test in tests.items():
        try:
            broken |= {rule} if test() else set()
        except Exception:  # a graph of any kind may fail to run in parts: what was found stands without it
            unasked.append(rule)
    return frozenset(broken), tuple(unasked)


def _hidden(taken: Sequence[TensorRead], flow: ComputationGraph) -> str:
    """Where the code compares the input with something, when its graph, traced from it, compares nothing at all."""
    places = [place.where for place in taken if place.decides]
    return places[0] if places and not any(node.op in COMPARES | CHOOSES for node in flow.nodes) else ""


def _beside(flow: ComputationGraph, reference: Artifact, x: Tensor) -> tuple[bool, str]:
    """Whether the graph has odd nodes that the reference's has not, and all that it has more, in words."""
    other = read_graph(reference.module, x)
    if isinstance(other, Unread):
        return False, f"the reference's graph cannot be read: {other.reason}"
    try:
        new = Counter(node.op for node in added(flow, other.flow))
    except Inconclusive as why:
        return False, str(why)
    said = ", ".join(f"{count} {op} more" for op, count in sorted(new.items()))
    return not ODD.isdisjoint(new), said or "the same operators"
