"""The machine graph of any module that ``torch.export`` accepts."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils import _pytree as pytree

from machgraph.architecture import Machine
from machgraph.graph import near
from machgraph.traced import Argument, Dimension, Traced

aten = torch.ops.aten
NO_GRAD = torch.ops.higher_order.wrap_with_set_grad_enabled
# They move numbers and compute none: part of whoever reads them. Views are told by their signature.
MOVES = (aten.clone.default, aten._to_copy.default, aten.detach_copy.default, aten.lift_fresh_copy.default)

Group = int | str | type[nn.Module] | Sequence[str | type[nn.Module]]


def from_torch(
    module: nn.Module,
    *inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    group: Group | None = None,
    dynamic_shapes: Any = None,
) -> Traced:
    """The machine graph of a module: its operations as a sum of machines, with an equal output and gradient.

    A machine is a call of a module without children, or one operation outside of those, and has its name (``conv1``,
    ``layer1.0.add``; at the second call ``conv1_2``). The component that it writes is called the same; if it writes
    several, they are ``name.OPERATION`` or ``name.INDEX``. Views, reshapes and casts belong to the machines that read
    them. Parameters and buffers are the module's own.

    Parameters
    ----------
    module : in the mode (training or not) that the graph is wanted for; what depends on it is decided now.
    inputs, kwargs : an example of its arguments. Shapes, ``if`` on shapes and arguments that are no tensors are fixed
        as they are here.
    group : what to take together as one machine: calls of a module (its path), of a class, of several of these; or a
        number, for the paths that agree so far: with 1 each child of ``module`` is a machine.
    dynamic_shapes : as for ``torch.export.export``; ``({0: torch.export.Dim.AUTO},)`` frees the first axis.

    Returns
    -------
    An architecture that is called as the module is, with ``inputs``, ``outputs`` and ``updates``.

    Raises
    ------
    ValueError : the module can't be exported, changes an input in place, or is never called as ``group`` says.

    Examples
    --------
    >>> f = from_torch(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.zeros(5, 3))
    >>> f.levels, f.inputs, f.outputs
    ([['0'], ['1'], ['2']], ('input',), '2')
    >>> f(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"got {type(module).__name__}: give an nn.Module (for a function, write mg.Machine)")
    grouping = _Grouping.of(module, group)
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of itself
        program = _program(module, inputs, dict(kwargs or {}), dynamic_shapes)
    return _Reader(module, program, grouping).traced()


# ---- the exported program ------------------------------------------------------------------------------------


def _program(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any) -> ExportedProgram:
    """The module as a graph of operations that change nothing in place."""
    try:
        program = torch.export.export(module, inputs, kwargs, dynamic_shapes=shapes)
        _keep_stops(program.graph_module)
        # in-place operations become pure, and no other is taken apart
        program = program.run_decompositions({aten.copy.default: _copy})
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"torch.export does not accept {type(module).__name__}: {reason}") from error
    for output in program.graph_signature.output_specs:
        if output.kind is OutputKind.USER_INPUT_MUTATION:
            raise ValueError(
                f"{type(module).__name__} changes its input {output.target} in place: let it work on a copy"
            )
        if output.kind not in (OutputKind.USER_OUTPUT, OutputKind.BUFFER_MUTATION):
            raise ValueError(f"{type(module).__name__} returns {output.kind.name}, which no machine can write")
    program.graph.eliminate_dead_code()
    return program  # type: ignore[no-any-return]


def _copy(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """What ``x`` holds after ``x.copy_(source)``; torch's own pure form has no derivative."""
    return source.to(x).expand_as(x).clone()


def _keep_stops(graph_module: fx.GraphModule) -> None:
    """Hold on to where no gradient passes: making a graph pure forgets ``detach`` and ``no_grad``, but no copies."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target in (aten.detach.default, aten.detach_.default):
            node.target = aten.detach_copy.default
        elif node.target is NO_GRAD and node.args[0] is False:
            _check_stop(node, graph_module.get_submodule(node.args[1].target))
            for result in list(node.users):
                with graph.inserting_after(result):
                    stop = graph.call_function(aten.detach_copy.default, (result,))
                stop.meta = dict(result.meta)
                result.replace_all_uses_with(stop, delete_user_cb=lambda user, stop=stop: user is not stop)
    graph_module.recompile()


def _check_stop(node: fx.Node, inside: Any) -> None:
    """What is done under ``no_grad`` must show in its results, or in a buffer that is not used again."""
    place = {one: i for i, one in enumerate(node.graph.nodes)}
    operands = dict(zip(inside.graph.find_nodes(op="placeholder"), node.args[2:], strict=True))
    for operation in inside.graph.nodes:
        if operation.target is NO_GRAD:
            raise ValueError("enable_grad inside of no_grad leaves no trace in a graph: move it out")
        schema = getattr(operation.target, "_schema", None)
        if schema is None or not schema.is_mutable:
            continue
        changed = operation.args[0]
        while changed.op == "call_function" and _shares_memory(changed):
            changed = changed.args[0]
        outside = operands.get(changed)
        if outside and (outside.op != "placeholder" or any(place[user] > place[node] for user in outside.users)):
            raise ValueError(f"{outside.name} is changed in place under no_grad and used again: work on a copy of it")


# ---- which operations are one machine ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Grouping:
    """Which calls of modules are one machine."""

    modules: Mapping[str, nn.Module]
    length: int | None
    paths: tuple[str, ...]
    classes: tuple[type[nn.Module], ...]

    @staticmethod
    def of(module: nn.Module, group: Group | None) -> "_Grouping":
        modules = dict(module.named_modules(remove_duplicate=False))
        if isinstance(group, int):
            if group < 1:
                raise ValueError(f"got group={group}: give how many names of a path are one machine, at least 1")
            return _Grouping(modules, group, (), ())
        wanted = () if group is None else (group,) if isinstance(group, str | type) else tuple(group)
        paths = tuple(one for one in wanted if isinstance(one, str))
        classes = tuple(one for one in wanted if isinstance(one, type))
        for path in paths:
            if path not in modules or not path:
                raise ValueError(f"got group={path!r}: {type(module).__name__} has no such module{near(path, modules)}")
        for one in classes:
            if not any(isinstance(child, one) for child in modules.values()):
                raise ValueError(f"got group={one.__name__}: {type(module).__name__} has no such module")
        return _Grouping(modules, None, paths, classes)

    def call(self, node: fx.Node) -> tuple[str, str] | None:
        """The call that a node belongs to as a part of one machine: an identity and the path; or none."""
        for identity, (path, _) in node.meta.get("nn_module_stack", {}).items():
            if path and path in self.modules and self._is_one(path):
                return identity, path
        return None

    def _is_one(self, path: str) -> bool:
        called = self.modules[path]
        return (
            (self.length is not None and path.count(".") + 1 >= self.length)
            or path in self.paths
            or isinstance(called, self.classes)
            or next(called.children(), None) is None
        )


@dataclass
class _Part:
    """The nodes of one machine."""

    name: str
    path: str
    nodes: list[fx.Node]


class _Reader:
    """Reads an exported program as a sum of machines."""

    def __init__(self, module: nn.Module, program: ExportedProgram, grouping: _Grouping) -> None:
        self.module, self.program, self.grouping = module, program, grouping
        self.by_name = {node.name: node for node in program.graph.nodes}
        signature = program.graph_signature
        self.inputs = {self.by_name[spec.arg.name]: spec for spec in signature.input_specs}
        self.outputs = [(self.by_name.get(getattr(spec.arg, "name", "")), spec) for spec in signature.output_specs]
        self.updated = {spec.target for _, spec in self.outputs if spec.kind is OutputKind.BUFFER_MUTATION}
        self.names: dict[fx.Node, str] = {}  # of the nodes that are components
        self.taken: set[str] = set()

    def traced(self) -> Traced:
        given = [(node, spec) for node, spec in self.inputs.items() if spec.kind is InputKind.USER_INPUT]
        for node, spec in given:
            if not isinstance(spec.arg, ConstantArgument):
                self.names[node] = self._name(node.name)
        parts = self._parts()
        owner = {node: part for part in parts for node in part.nodes}
        sources = [list(self._sources(part, owner)) for part in parts]
        read = {node for nodes in sources for node in nodes}.union(node for node, _ in self.outputs if node)
        writes = [[node for node in part.nodes if node in read] for part in parts]
        for part, nodes in zip(parts, writes, strict=True):
            self._name_components(part, nodes)
        machines = [self._machine(*one) for one in zip(parts, sources, writes, strict=True) if one[2]]
        if not machines:
            raise ValueError(
                f"{type(self.module).__name__} computes nothing from what it is given: there is no machine"
            )
        arguments = [self._argument(node, spec) for node, spec in given]
        returns = [self._argument(node, spec) for node, spec in self.outputs if spec.kind is OutputKind.USER_OUTPUT]
        updates = {
            self.names[node]: self._tensor(spec.target)
            for node, spec in self.outputs
            if node and spec.kind is OutputKind.BUFFER_MUTATION
        }
        spec = self.program.call_spec
        assert spec.in_spec is not None
        assert spec.out_spec is not None
        inputs, outputs = pytree.tree_unflatten(arguments, spec.in_spec), pytree.tree_unflatten(returns, spec.out_spec)
        return Traced(machines, inputs, outputs, updates)

    def _parts(self) -> list[_Part]:
        """Machines in the order of the program: calls, and single operations outside of them."""
        returned = {node for node, _ in self.outputs if node}
        found: dict[str, _Part] = {}
        home: dict[fx.Node, str] = {}
        for node in self.program.graph.nodes:
            held = node.op == "placeholder" and node not in self.names and node in returned  # a parameter, say
            if node.op != "call_function" and not held:
                continue
            call = None if held else self.grouping.call(node)
            if node.target is getitem:  # a result stays with the operation that has several
                home[node] = home[node.args[0]]
            else:
                home[node] = call[0] if call else node.name
            if home[node] not in found:
                path = call[1] if call else self._path(node)
                found[home[node]] = _Part(path if call or held else f"{path}.{_operation(node)}".lstrip("."), path, [])
            found[home[node]].nodes.append(node)
        parts = [p for p in found.values() if not all(map(_is_free, p.nodes)) or not returned.isdisjoint(p.nodes)]
        for part in parts:
            part.name = self._name(part.name)
        return parts

    def _path(self, node: fx.Node) -> str:
        """Of the innermost module that does this."""
        if node in self.inputs:
            return str(self.inputs[node].target)
        calls: list[tuple[str, Any]] = list(node.meta.get("nn_module_stack", {}).values())
        return calls[-1][0] if calls else ""

    def _sources(self, part: _Part, owner: Mapping[fx.Node, _Part]) -> Iterator[fx.Node]:
        """The components that the part reads, in the order of use."""
        seen = set(part.nodes)
        for node in part.nodes:
            stack = list(reversed(node.all_input_nodes))
            while stack:
                one = stack.pop()
                if one in seen:
                    continue
                seen.add(one)
                if one in self.names or (one in owner and _is_tensor(one)):
                    yield one
                else:
                    stack.extend(reversed(one.all_input_nodes))

    def _machine(self, part: _Part, reads: Sequence[fx.Node], writes: Sequence[fx.Node]) -> Machine:
        graph, held = fx.Graph(), dict[str, Any]()
        copies = {node: graph.placeholder(node.name) for node in reads}

        def copy(node: fx.Node) -> fx.Node:
            if node not in copies:
                copies[node] = self._hold(node, part, graph, held) or graph.node_copy(node, copy)
                if node.target is aten.detach_copy.default:  # which autograd knows
                    copies[node].target = aten.detach.default
            return copies[node]

        for node in part.nodes:
            copy(node)
        results = tuple(copies[node] for node in writes)
        graph.output(results if len(results) > 1 else results[0])
        graph.eliminate_dead_code()
        function = fx.GraphModule(held, graph, class_name=part.name.rsplit(".", 1)[-1])
        return Machine(function, [self.names[n] for n in reads], [self.names[n] for n in writes], part.name)

    def _hold(self, node: fx.Node, part: _Part, graph: fx.Graph, held: dict[str, Any]) -> fx.Node | None:
        """What is no result: a parameter, a buffer, a constant, a graph that an operation takes."""
        if node.op == "get_attr":
            target, value = str(node.target), self.program.graph_module.get_submodule(str(node.target))
        elif node in self.inputs:
            target, value = str(self.inputs[node].target), self._tensor(str(self.inputs[node].target))
        else:
            return None
        name = target.removeprefix(f"{part.path}.")
        held[name] = value
        attribute = graph.get_attr(name)
        # a copy of what the call is about to change, for autograd to keep
        return graph.call_function(aten.clone.default, (attribute,)) if target in self.updated else attribute

    def _tensor(self, path: str) -> Tensor:
        """The module's own parameter or buffer, or a constant of the program."""
        owner, _, name = path.rpartition(".")
        try:
            value = getattr(self.module.get_submodule(owner), name)
        except AttributeError:
            value = self.program.constants[path]
        if not isinstance(value, Tensor):
            raise ValueError(f"{type(self.module).__name__} computes with {path}, which is no tensor: no machine can")
        return value

    def _name_components(self, part: _Part, nodes: Sequence[fx.Node]) -> None:
        buffers = {node: str(spec.target) for node, spec in self.outputs if spec.kind is OutputKind.BUFFER_MUTATION}
        rest = [node for node in nodes if node not in buffers]
        for node in nodes:
            if node in buffers:
                self.names[node] = buffers[node]
            elif len(rest) == 1:
                self.names[node] = part.name
            else:
                label = node.args[1] if node.target is getitem else _operation(node)
                self.names[node] = self._name(f"{part.name}.{label}")

    def _name(self, wanted: str) -> str:
        """The name, or the first of name_2, name_3, ... that is free."""
        name, count = wanted, 1
        while name in self.taken:
            count += 1
            name = f"{wanted}_{count}"
        self.taken.add(name)
        return name

    def _argument(self, node: fx.Node | None, spec: Any) -> Argument:
        if node is None or isinstance(spec.arg, ConstantArgument):
            return Argument(value=spec.arg.value)
        if not _is_tensor(node):
            raise ValueError(f"{type(self.module).__name__} returns a size that varies: return tensors alone")
        return Argument(self.names[node], tuple(self._dimension(size) for size in node.meta["val"].shape))

    def _dimension(self, size: int | torch.SymInt) -> int | Dimension:
        if isinstance(size, int):
            return size
        bounds = self.program.range_constraints.get(size.node.expr)
        return Dimension(str(size), *(map(int, (bounds.lower, min(bounds.upper, 2**62))) if bounds else (0, 2**62)))


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _is_free(node: fx.Node) -> bool:
    """It computes nothing: a view, a move, a choice from several results that are views, a size."""
    if node.target is getitem:
        return _is_free(node.args[0])  # type: ignore[arg-type]
    if node.op != "call_function" or node.target in MOVES:
        return True
    if not isinstance(node.meta.get("val"), Tensor | tuple | list):
        return True
    return _shares_memory(node)


def _shares_memory(node: fx.Node) -> bool:
    """A view, by its signature: Tensor(a) -> Tensor(a)."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.returns) and all(result.alias_info for result in schema.returns)


def _operation(node: fx.Node) -> str:
    if node.target is aten.detach_copy.default:
        return "detach"
    schema = getattr(node.target, "_schema", None)
    name = schema.name.split("::")[-1] if schema is not None else getattr(node.target, "__name__", str(node.target))
    return str(name.strip("_"))
