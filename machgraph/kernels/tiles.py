"""Two small matrix products in the compiler's own vector instructions: what the speed of the loop rests on.

A tile of the result stays in registers while the sum runs, so that each number loaded is used several times. The two
differ in the axis that lies contiguous in memory:

    outer    C[i, j] += Σ_k A[i, k] B[k, j]        rows of B and C contiguous: a vector holds neighbours in j
    inner    C[i, j] += Σ_n A[i, n] B[j, n]        rows of A and B contiguous: a vector holds neighbours in n

``outer`` serves W z, and W* v, whatever the strides of W; ``inner`` serves the gradient of W. They are intrinsics of
numba: functions that emit instructions of LLVM, for the type of their first argument. Addresses are whole numbers;
strides and lengths count entries.
"""

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

INT = ir.IntType(64)
Value = Any  # the compiler's: an instruction's result


def _features() -> str:
    """What this processor can do, as numba tells the compiler."""
    return str(llvm.get_host_cpu_features().flatten() if config.CPU_FEATURES is None else config.CPU_FEATURES)


VECTOR_BYTES = 64 if "+avx512f" in _features() else 32 if "+avx" in _features() else 16
ROWS = 4 if VECTOR_BYTES == 32 else 8  # of a tile of two vectors: there are 16 registers, or 32
SIDE = 4  # of a tile of inner products


def outer_tile(rows: int, vectors: int, masked: bool) -> Any:
    """An intrinsic for a tile of so many rows and vectors; if masked, ``columns`` entries of the last vector count.

    Its arguments: ``like, columns, K, A, stride i, stride k, B, stride k, C, stride i``.
    """

    @intrinsic
    def tile(typing, like, columns, K, A, a_i, a_k, B, b_k, C, c_i):
        def emit(context: Any, builder: Any, signature: Any, arguments: Sequence[Value]) -> Value:
            code = _Code(context, builder, like)
            columns, K, A, B, C = (arguments[i] for i in (1, 2, 3, 6, 8))
            a_i, a_k, b_k, c_i = (code.bytes(arguments[i]) for i in (4, 5, 7, 9))
            masks = [None] * (vectors - 1) + [code.mask(columns, code.lanes) if masked else None]

            def terms(_: Value, addresses: list[Value], sums: list[Value]) -> list[Value]:
                a, b = addresses
                right = [code.load(code.moved(b, code.width * v), masks[v]) for v in range(vectors)]
                left = [code.broadcast(code.row(a, a_i, i)) for i in range(rows)]
                return [code.fma(left[n // vectors], right[n % vectors], sum_) for n, sum_ in enumerate(sums)]

            sums = code.sum(K, 1, [A, B], [a_k, b_k], rows * vectors, terms)
            for i in range(rows):
                for v in range(vectors):
                    code.add_to(code.moved(code.row(C, c_i, i), code.width * v), sums[i * vectors + v], masks[v])
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * 9), emit

    return tile


@intrinsic
def inner_tile(typing, like, rows, columns, N, A, a_i, B, b_j, C, c_i):
    """A tile of up to ``SIDE`` rows and columns; A and B are not read beyond them."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Sequence[Value]) -> Value:
        code = _Code(context, builder, like)
        rows, columns, N, A, B, C = (arguments[i] for i in (1, 2, 3, 4, 6, 8))
        a_i, b_j, c_i = (code.bytes(arguments[i]) for i in (5, 7, 9))
        above = [code.multiple(a_i, code.least(i, rows)) for i in range(SIDE)]
        beside = [code.multiple(b_j, code.least(j, columns)) for j in range(SIDE)]

        def terms(n: Value, addresses: list[Value], sums: list[Value]) -> list[Value]:
            mask = code.mask(builder.sub(N, n), code.lanes)
            left = [code.load(builder.add(addresses[0], offset), mask) for offset in above]
            right = [code.load(builder.add(addresses[1], offset), mask) for offset in beside]
            return [code.fma(left[n // SIDE], right[n % SIDE], sum_) for n, sum_ in enumerate(sums)]

        width = ir.Constant(INT, code.width)
        totals = code.totals(code.sum(N, code.lanes, [A, B], [width, width], SIDE * SIDE, terms))
        for i in range(SIDE):
            there = builder.icmp_signed("<", ir.Constant(INT, i), rows)
            mask = code.mask(builder.select(there, columns, ir.Constant(INT, 0)), SIDE)
            code.add_to(code.row(C, c_i, i), code.slice(totals, SIDE * i, SIDE), mask)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 9), emit


@intrinsic
def copy_tile(typing, like, to, source):
    """Copy two vectors from one address to another."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Sequence[Value]) -> Value:
        code = _Code(context, builder, like)
        for v in range(2):
            to, source = (code.moved(address, code.width * v) for address in arguments[1:])
            code.store(to, code.load(source, None))
        return context.get_dummy_value()

    return types.void(like, types.int64, types.int64), emit


class _Code:
    """Emits instructions on vectors of one type; addresses and their steps are in bytes."""

    def __init__(self, context: Any, builder: Any, like: Any) -> None:
        self.builder = builder
        self.kind = context.get_value_type(like)
        self.size = {"float32": 4, "float64": 8}[like.name]
        self.lanes, self.width = VECTOR_BYTES // self.size, VECTOR_BYTES

    # ---- addresses

    def bytes(self, stride: Value) -> Value:
        return self.builder.mul(stride, ir.Constant(INT, self.size))

    def multiple(self, step: Value, times: Value) -> Value:
        return self.builder.mul(step, times)

    def moved(self, address: Value, by: int) -> Value:
        return self.builder.add(address, ir.Constant(INT, by))

    def row(self, address: Value, stride: Value, i: int) -> Value:
        return self.builder.add(address, self.multiple(stride, ir.Constant(INT, i)))

    def least(self, i: int, length: Value) -> Value:
        """``i``, or the last index if that comes before."""
        inside = self.builder.icmp_signed("<", ir.Constant(INT, i), length)
        return self.builder.select(inside, ir.Constant(INT, i), self.builder.sub(length, ir.Constant(INT, 1)))

    # ---- vectors

    def type(self, lanes: int) -> ir.VectorType:
        return ir.VectorType(self.kind, lanes)

    def mask(self, count: Value, lanes: int) -> Value:
        """True in the first ``count`` lanes."""
        places = ir.Constant(ir.VectorType(INT, lanes), list(range(lanes)))
        return self.builder.icmp_signed("<", places, self._spread(count, INT, lanes))

    def load(self, address: Value, mask: Value | None) -> Value:
        vector = self.type(self.lanes)
        return self._load(address, vector, mask)

    def broadcast(self, address: Value) -> Value:
        number = self.builder.load(self.builder.inttoptr(address, self.kind.as_pointer()), align=self.size)
        return self._spread(number, self.kind, self.lanes)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """``a b + c``, in one instruction where the processor has it."""
        return self.builder.call(self._intrinsic("fmuladd", a.type, [a.type] * 3), [a, b, c])

    def add_to(self, address: Value, value: Value, mask: Value | None) -> None:
        self.store(address, self.builder.fadd(self._load(address, value.type, mask), value), mask)

    def store(self, address: Value, value: Value, mask: Value | None = None) -> None:
        pointer = self.builder.inttoptr(address, value.type.as_pointer())
        if mask is None:
            self.builder.store(value, pointer, align=self.size)
            return
        store = self._masked("store", value.type, ir.VoidType(), [value.type, pointer.type, ir.IntType(32), mask.type])
        self.builder.call(store, [value, pointer, ir.Constant(ir.IntType(32), self.size), mask])

    def sum(
        self,
        length: Value,
        stride: int,
        addresses: list[Value],
        steps: list[Value],
        count: int,
        terms: Callable[[Value, list[Value], list[Value]], list[Value]],
    ) -> list[Value]:
        """Sums, as vectors, of a loop over ``range(0, length, stride)`` in which addresses move by their steps."""
        builder, vector = self.builder, self.type(self.lanes)
        zero = ir.Constant(vector, [0.0] * self.lanes)
        start = builder.block
        loop, end = builder.append_basic_block("sum"), builder.append_basic_block("summed")
        builder.cbranch(builder.icmp_signed(">", length, ir.Constant(INT, 0)), loop, end)
        builder.position_at_end(loop)
        first = [ir.Constant(INT, 0), *addresses, *[zero] * count]
        now = [builder.phi(value.type) for value in first]
        index, places, sums = now[0], now[1 : len(addresses) + 1], now[len(addresses) + 1 :]
        new = terms(index, places, sums)
        moved = [builder.add(place, step) for place, step in zip(places, steps, strict=True)]
        following = [builder.add(index, ir.Constant(INT, stride)), *moved, *new]
        for phi, before, after in zip(now, first, following, strict=True):
            phi.add_incoming(before, start)
            phi.add_incoming(after, loop)
        builder.cbranch(builder.icmp_signed("<", following[0], length), loop, end)
        builder.position_at_end(end)
        results = [builder.phi(vector) for _ in range(count)]
        for phi, value in zip(results, new, strict=True):
            phi.add_incoming(zero, start)
            phi.add_incoming(value, loop)
        return results

    def totals(self, vectors: list[Value]) -> list[Value]:
        """The sums over the lanes of each vector, in order, as vectors: halves are added until one lane is left."""
        groups = [vectors[i : i + self.lanes] for i in range(0, len(vectors), self.lanes)]
        return [self._total(group) for group in groups]

    def _total(self, vectors: list[Value]) -> Value:
        parts = self.lanes  # lanes that one sum is spread over
        while parts > 1:
            places = range(0, 2 * self.lanes, parts)  # where the sums of two vectors begin
            low = [place + lane for place in places for lane in range(parts // 2)]
            high = [place + parts // 2 for place in low]
            vectors = [
                self.builder.fadd(self._shuffle(x, y, low), self._shuffle(x, y, high))
                for x, y in zip(vectors[::2], vectors[1::2], strict=True)
            ]
            parts //= 2
        return vectors[0]

    def slice(self, vectors: list[Value], start: int, length: int) -> Value:
        """So many neighbouring lanes of a row of vectors; they lie in one or in two of them."""
        first, last = vectors[start // self.lanes], vectors[(start + length - 1) // self.lanes]
        return self._shuffle(first, last, [start % self.lanes + lane for lane in range(length)])

    def _shuffle(self, x: Value, y: Value, lanes: list[int]) -> Value:
        return self.builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))

    def _spread(self, number: Value, kind: Any, lanes: int) -> Value:
        empty = ir.Constant(ir.VectorType(kind, lanes), ir.Undefined)
        return self._shuffle(
            self.builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0)), empty, [0] * lanes
        )

    def _load(self, address: Value, vector: Any, mask: Value | None) -> Value:
        pointer = self.builder.inttoptr(address, vector.as_pointer())
        if mask is None:
            return self.builder.load(pointer, align=self.size)
        zero = ir.Constant(vector, [0.0] * vector.count)
        load = self._masked("load", vector, vector, [pointer.type, ir.IntType(32), mask.type, vector])
        return self.builder.call(load, [pointer, ir.Constant(ir.IntType(32), self.size), mask, zero])

    def _masked(self, name: str, vector: Any, result: Any, arguments: list[Any]) -> Any:
        function = ir.FunctionType(result, arguments)
        suffix = f"v{vector.count}f{8 * self.size}.p0"
        return cgutils.get_or_insert_function(self.builder.module, function, f"llvm.masked.{name}.{suffix}")

    def _intrinsic(self, name: str, vector: Any, arguments: list[Any]) -> Any:
        function = ir.FunctionType(vector, arguments)
        suffix = f"v{vector.count}f{8 * self.size}"
        return cgutils.get_or_insert_function(self.builder.module, function, f"llvm.{name}.{suffix}")
