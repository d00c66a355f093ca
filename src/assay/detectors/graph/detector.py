"""Computation graph: parts without trained weights that read the input and change the output.

Published graph backdoors and edits of ONNX files differ from trained models there. The detector cannot see a backdoor
in the weights alone.

* Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors in Machine Learning Models, 2022, arXiv
  2204.06974. Its signature check is a gate.
* Bober-Irizar, Shumailov, Zhao, Mullins, Papernot: Architectural Backdoors in Neural Networks, 2022, arXiv 2206.07840.
* Langford, Shumailov, Zhao, Mullins, Papernot: Architectural Neural Backdoors from First Principles, 2024, arXiv
  2402.06957.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import Inconclusive, first_line
from assay.core.finding import Evidence, Finding, GraphNode, Outcome
from assay.core.model import Artifact, Modality
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.cost import Cost
from assay.detectors.graph.activations import constant_activations
from assay.detectors.graph.conditions import find_signs
from assay.detectors.graph.graph_diff import added_nodes
from assay.detectors.graph.read import ReadableGraph, UnreadableGraph, is_onnx_session, read_graph, unwrap
from assay.detectors.graph.repeat_run import differs_from_export, is_deterministic, is_lsb_sensitive
from assay.detectors.graph.rules import (
    COMPARISONS,
    CONDITION_RULES,
    INTEGER_OPERATORS,
    RULES,
    SELECTIONS,
    SuspiciousSubgraph,
    find_cipher_constants,
    find_suspicious_subgraphs,
    has_no_gradient,
)
from assay.detectors.requirement import Requirement
from assay.graphs.data_access import TensorRead, find_tensor_reads
from assay.graphs.dependence import has_trained_weights
from assay.graphs.ir import ComputationGraph

MAX_SAMPLES = 32  # clean samples for the rules of behaviour
MIN_SAMPLES = 16  # with fewer, a branch with a constant value means little
MIN_CIPHER_CONSTANTS = 2  # a single one may be chance
# Rules by which a path that joins the model is a switch: it is constant on clean samples, or steep.
SWITCH_RULES = frozenset({"D3", "R4"})
# Operators that are suspicious if the graph of the reference has fewer. Other operators depend on the exporter.
SUSPICIOUS_IF_ADDED = COMPARISONS | INTEGER_OPERATORS | SELECTIONS | {"Pow", "Exp"}
MAX_DRAWN_NODES = 24

Numbers = dict[str, float | int | str]


@dataclass
class _Report:
    """Broken rules and their evidence, while the detector runs."""

    graph: ComputationGraph
    subgraphs: Sequence[SuspiciousSubgraph]
    cipher_constants: frozenset[int]
    rules: set[str] = field(default_factory=set)
    numbers: Numbers = field(default_factory=dict)
    signs: dict[str, str] = field(default_factory=dict)  # of a hidden condition: rule -> node

    @property
    def doubt(self) -> str:
        """Sentence on the first sign of a hidden condition; empty without any."""
        signs = [f"{RULES[rule]}, at {self.signs[rule]}" for rule in CONDITION_RULES if rule in self.signs]
        joins = (f"{part.join.op} {part.join.name}" for part in self.subgraphs)
        signs += [f"a path from the input without trained weights joins the model, at {join}" for join in joins]
        return next(iter(signs), "")


@final
class Graph(Detector):
    """Number of rules that the computation graph breaks.

    A proof is a path that replaces the output, or that joins the model and is a switch.
    """

    name = "graph"
    title = "parts of the computation that read the input without trained weights"
    cost = Cost(100, exports=True)
    needs = Requirement.NONE
    modality = None
    needs_null = False
    reads_computation = True
    on_variants = False

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        x = clean.x[:MAX_SAMPLES] if len(clean) else artifact.inputs.blank(2)
        from_file = is_onnx_session(artifact.module)
        tensor_reads = () if from_file else find_tensor_reads(unwrap(artifact.module), x)
        # Code that reads the whole input is a proof. Tracing it number by number takes minutes, and fails then.
        if whole := next((place for place in tensor_reads if place.bulk), None):
            return self._proof_from_code(whole)
        read = read_graph(artifact.module, x)
        if isinstance(read, UnreadableGraph):
            # Honest code reads single numbers of the input too, for instance its maximum.
            places = [place.location for place in tensor_reads if not place.is_comparison]
            reads = f"; its code reads values of the input, at {places[0]}" if places else ""
            raise Inconclusive(f"cannot read the graph: {read.reason}{reads}")
        progress(0.5)
        report = _graph_rules(read.graph, artifact)
        _add_signs(report, read, is_image=artifact.modality is Modality.IMAGE, seed=seed)
        # The code compares input values, and its traced graph compares nothing.
        hidden = [place.location for place in tensor_reads if place.is_comparison]
        is_image = artifact.modality is Modality.IMAGE
        compares = any(node.op in COMPARISONS | SELECTIONS for node in read.graph.nodes)
        if is_image and hidden and not report.subgraphs and not compares:
            report.rules.add("D5")
            report.numbers["compared at"] = hidden[0]
        if len(clean) >= MIN_SAMPLES:
            broken, failed = _behavior_rules(read, artifact, report.subgraphs, x, seed=seed)
            report.rules |= broken
            report.numbers |= {"not tested": ", ".join(failed)} if failed else {}
        if artifact.reference is not None:
            is_suspicious, report.numbers["difference to the reference"] = _diff(read.graph, artifact.reference, x)
            report.rules |= {"R9"} if is_suspicious else set()
        progress(1.0)
        return self._finding(report)

    def _finding(self, report: _Report) -> Finding:
        """Return the finding for the broken rules, with the longest suspicious path as evidence."""
        rules, numbers = report.rules, report.numbers
        numbers |= {rule: RULES[rule] for rule in sorted(rules)}
        drawn: tuple[GraphNode, ...] = ()
        proof = ""
        if report.subgraphs:
            worst = max(report.subgraphs, key=lambda subgraph: (len(subgraph.rules), len(subgraph.path.nodes)))
            nodes = worst.path.nodes[-MAX_DRAWN_NODES:]
            drawn = tuple(GraphNode(node.op, node.name, node.inputs, node.outputs) for node in nodes)
            description = (
                f"its graph reads the input through {len(worst.path.nodes)} operators without trained weights, from "
                f"{nodes[0].op} {nodes[0].name} to {worst.join.op} {worst.join.name}, and the result "
                f"{'replaces the output' if worst.replaces_output else 'joins the model after its first weights'}"
            )
            numbers["joins the model at"] = f"{worst.join.op} {worst.join.name}"
            numbers["description"] = description
            # A hand-made feature that joins the others, without a switch, may be legitimate: no proof.
            decides = worst.replaces_output or bool(rules & SWITCH_RULES)
            proof = description if has_trained_weights(report.graph) and decides else ""
        elif "R5" in rules:
            proof = f"its graph holds {len(report.cipher_constants)} constants of a cipher or a hash"
        evidence = Evidence(numbers=numbers, graph=drawn)
        outcome = Outcome.PROVEN if proof else Outcome.CHECKED
        return Finding(self.name, outcome, reason=proof, score=float(len(rules)), evidence=evidence, doubt=report.doubt)

    def _proof_from_code(self, place: TensorRead) -> Finding:
        """Return the finding for code that reads the whole input at ``place``."""
        numbers: Numbers = {"R2": RULES["R2"], "reads the input at": place.location}
        proof = f"its code reads the whole input and decides by its values, at {place.location}"
        return Finding(self.name, Outcome.PROVEN, reason=proof, score=1.0, evidence=Evidence(numbers=numbers))


def _graph_rules(graph: ComputationGraph, artifact: Artifact) -> _Report:
    """Test the rules R1 to R8 and R10, which need nothing but the graph."""
    subgraphs = find_suspicious_subgraphs(graph, markers=artifact.inputs.markers)
    report = _Report(graph, subgraphs, find_cipher_constants(graph))
    report.rules |= {rule for subgraph in subgraphs for rule in subgraph.rules}
    report.numbers |= {"nodes": len(graph.nodes), "suspicious subgraphs": len(subgraphs)}
    if len(report.cipher_constants) >= MIN_CIPHER_CONSTANTS:
        report.rules.add("R5")
    # Token numbers have no gradient; images do.
    if artifact.modality is Modality.IMAGE and has_no_gradient(graph):
        report.rules.add("R10")
    return report


def _add_signs(report: _Report, read: ReadableGraph, *, is_image: bool, seed: int) -> None:
    """Test the rules R11 to R13 and D6, signs of a hidden condition.

    Args:
        report: Receives the broken rules.
        read: The graph, and samples in its layout.
        is_image: True for a model of images.
        seed: Seed of the changes within an 8-bit step.
    """
    try:
        report.signs = find_signs(read, is_image=is_image, seed=seed)
    except Exception as error:  # an arbitrary graph may not be valid in parts; the other rules still count
        report.numbers["conditions not tested"] = first_line(error)
    report.rules |= set(report.signs)
    report.numbers |= {f"{rule} at": place for rule, place in report.signs.items()}


def _behavior_rules(
    read: ReadableGraph, artifact: Artifact, subgraphs: Sequence[SuspiciousSubgraph], x: Tensor, *, seed: int
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Test the rules D1, D3 and D5 on clean samples.

    Args:
        read: The graph, and samples in its layout.
        artifact: The model.
        subgraphs: Suspicious subgraphs; rule D3 is about their gates.
        x: Clean samples (N, ...).
        seed: Seed of the lowest bits for rule D1.

    Returns:
        The broken rules, and the rules whose test failed with an error.
    """
    module = artifact.module
    gates = {subgraph.gate for subgraph in subgraphs} - set(read.graph.sources)
    inner = sorted(gates & {value for node in read.model.graph.node for value in node.output})
    tests: dict[str, Callable[[], object]] = {}
    if inner:
        tests["D3"] = lambda: constant_activations(read.model, inner, read.x, batch=read.batch)
    if is_deterministic(module, x[:2]):
        if artifact.modality is Modality.IMAGE:
            tests["D1"] = lambda: is_lsb_sensitive(module, x, seed=seed)
        if not is_onnx_session(module):
            tests["D5"] = lambda: differs_from_export(module, read)
    broken, failed = set(), []
    for rule, test in tests.items():
        try:
            broken |= {rule} if test() else set()
        except Exception:  # an arbitrary graph may not run in parts; the other rules still count
            failed.append(rule)
    return frozenset(broken), tuple(failed)


def _diff(graph: ComputationGraph, reference: Artifact, x: Tensor) -> tuple[bool, str]:
    """Compare a graph with the graph of a reference model.

    Args:
        graph: The graph under audit.
        reference: The reference model.
        x: Samples (N, ...) for its export.

    Returns:
        Whether the graph has additional suspicious operators, and all additional operators in words.
    """
    other = read_graph(reference.module, x)
    if isinstance(other, UnreadableGraph):
        return False, f"cannot read the graph of the reference: {other.reason}"
    try:
        added = Counter(node.op for node in added_nodes(graph, other.graph))
    except Inconclusive as error:
        return False, str(error)
    description = ", ".join(f"{count} {op} more" for op, count in sorted(added.items()))
    return not SUSPICIOUS_IF_ADDED.isdisjoint(added), description or "the same operators"
