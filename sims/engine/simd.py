"""Eight float64 side by side, for sums that keep one fixed order on every machine.

A compiler may not reorder a floating-point sum, so a dot product written as a loop runs one number at a time.
Written with `Lanes` the order is stated: lane l adds the terms l, l + 8, l + 16, ..., each on its own, and the
end adds the eight lanes as `total` says; `fused` rounds a product and a sum once, as the standard defines it. Every
processor follows it with the vector registers that it has, so the bits are the same. Nothing is checked here: arrays
are contiguous, and indices within them.
"""

import operator

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 8

VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)


class Lanes(types.Type):
    """WIDTH float64 inside compiled code; it cannot leave it."""

    def __init__(self):
        super().__init__(name=f"Lanes({WIDTH})")


lanes = Lanes()


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, VECTOR)


def _pointer(context, builder, kind, place, pointee):
    """To the numbers at `place`, an array and an index in it."""
    array, index = place
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), pointee.as_pointer())


def _shuffle(builder, a, b, order):
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), list(order)))


def _fold(builder, a):
    """The upper half of a vector added to its lower half."""
    half = a.type.count // 2
    return builder.fadd(_shuffle(builder, a, a, range(half)), _shuffle(builder, a, a, range(half, 2 * half)))


@intrinsic
def load(typing, x, j):
    """x[j : j + WIDTH]"""

    def code(context, builder, signature, args):
        return builder.load(_pointer(context, builder, x, args, VECTOR), align=8)

    return lanes(x, types.intp), code


@intrinsic
def store(typing, x, j, a):
    """x[j : j + WIDTH] = a"""

    def code(context, builder, signature, args):
        builder.store(args[2], _pointer(context, builder, x, args[:2], VECTOR), align=8)
        return context.get_dummy_value()

    return types.void(x, types.intp, a), code


@intrinsic
def spread(typing, number):
    """The same number in every lane."""

    def code(context, builder, signature, args):
        first = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), args[0], ir.Constant(ir.IntType(32), 0))
        return _shuffle(builder, first, first, [0] * WIDTH)

    return lanes(types.float64), code


@intrinsic
def total(typing, a):
    """The sum of the lanes: with s_l = a_l + a_(l+4), (s_0 + s_1) + (s_2 + s_3)."""

    def code(context, builder, signature, args):
        s = [builder.extract_element(_fold(builder, args[0]), ir.Constant(ir.IntType(32), i)) for i in range(4)]
        return builder.fadd(builder.fadd(s[0], s[1]), builder.fadd(s[2], s[3]))

    return types.float64(a), code


@intrinsic
def store_totals(typing, x, i, a, b, c, d):
    """x[i : i + 4] = total(a), total(b), total(c), total(d); at once it takes a third of the instructions."""

    def code(context, builder, signature, args):
        a, b, c, d = (_fold(builder, lane) for lane in args[2:])

        def pairs(left, right):
            """left_0 + left_1, right_0 + right_1, left_2 + left_3, right_2 + right_3"""
            even, odd = (_shuffle(builder, left, right, order) for order in ((0, 4, 2, 6), (1, 5, 3, 7)))
            return builder.fadd(even, odd)

        ab, cd = pairs(a, b), pairs(c, d)
        low, high = (_shuffle(builder, ab, cd, order) for order in ((0, 1, 4, 5), (2, 3, 6, 7)))
        totals = builder.fadd(low, high)
        builder.store(totals, _pointer(context, builder, x, args[:2], totals.type), align=8)
        return context.get_dummy_value()

    return types.void(x, types.intp, a, b, c, d), code


@intrinsic
def fused(typing, a, b, c):
    """a * b + c, rounded once."""

    def code(context, builder, signature, args):
        name = f"llvm.fma.v{WIDTH}f64"
        declared = builder.module.globals.get(name)
        if declared is None:
            declared = ir.Function(builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), name)
        return builder.call(declared, args)

    return lanes(a, b, c), code


BITS = ir.VectorType(ir.IntType(64), WIDTH)
ROOT_OF_SMALLEST = 2.0**-511  # of the smallest normal number


@intrinsic
def squared(typing, a):
    """a * a, and 0 where that would be no normal number: with such a processor takes a hundred times as long."""

    def code(context, builder, signature, args):
        (a,) = args
        name = f"llvm.fabs.v{WIDTH}f64"
        size = builder.module.globals.get(name)
        if size is None:
            size = ir.Function(builder.module, ir.FunctionType(VECTOR, [VECTOR]), name)
        small = builder.fcmp_ordered("<", builder.call(size, [a]), ir.Constant(VECTOR, [ROOT_OF_SMALLEST] * WIDTH))
        # Masked bit by bit: a choice between numbers would be put off until after the product.
        kept = builder.and_(builder.bitcast(a, BITS), builder.sext(builder.not_(small), BITS))
        kept = builder.bitcast(kept, VECTOR)
        return builder.fmul(kept, kept)

    return lanes(a), code


@intrinsic
def signs(typing, before, a):
    """`before`, with the sign bit set in each lane in which a has one; its other bits mean nothing."""

    def code(context, builder, signature, args):
        return builder.bitcast(builder.or_(*(builder.bitcast(arg, BITS) for arg in args)), VECTOR)

    return lanes(before, a), code


@intrinsic
def any_sign(typing, a):
    """Whether a lane of a has its sign bit set."""

    def code(context, builder, signature, args):
        mask = ir.IntType(WIDTH)
        negative = builder.icmp_signed("<", builder.bitcast(args[0], BITS), ir.Constant(BITS, [0] * WIDTH))
        return builder.icmp_unsigned("!=", builder.bitcast(negative, mask), ir.Constant(mask, 0))

    return types.boolean(a), code


@intrinsic
def _added(typing, a, b):
    return lanes(a, b), lambda context, builder, signature, args: builder.fadd(*args)


@intrinsic
def _multiplied(typing, a, b):
    return lanes(a, b), lambda context, builder, signature, args: builder.fmul(*args)


@overload(operator.add)
@overload(operator.iadd)
def _add(a, b):
    if isinstance(a, Lanes) and isinstance(b, Lanes):
        return lambda a, b: _added(a, b)  # type: ignore[call-arg]


@intrinsic
def _subtracted(typing, a, b):
    return lanes(a, b), lambda context, builder, signature, args: builder.fsub(*args)


@overload(operator.sub)
def _subtract(a, b):
    if isinstance(a, Lanes) and isinstance(b, Lanes):
        return lambda a, b: _subtracted(a, b)  # type: ignore[call-arg]


@overload(operator.mul)
def _multiply(a, b):
    if isinstance(a, Lanes) and isinstance(b, Lanes):
        return lambda a, b: _multiplied(a, b)  # type: ignore[call-arg]


@njit(nogil=True, cache=True, error_model="numpy")
def aligned(size):
    """Zeros (size,) that begin at a cache line: a vector that straddles two of them takes twice as long to load."""
    room = np.zeros(size + WIDTH)
    first = (-room.ctypes.data % 64) // 8
    return room[first : first + size]
