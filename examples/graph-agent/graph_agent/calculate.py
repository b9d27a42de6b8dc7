"""The agent's tool: arithmetic, read as a syntax tree, so that nothing but arithmetic can be asked of it."""

import ast
import operator
from collections.abc import Callable

from langchain_core.tools import tool

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_LARGEST_EXPONENT = 1000
"""``9 ** 9 ** 9`` would not end."""


@tool
def calculate(expression: str) -> str:
    """Calculate an arithmetic expression such as ``(3 + 4) * 12 / 7``; ``+ - * / // % **`` and parentheses."""
    try:
        return f"{evaluate(expression):.12g}"
    except (ValueError, ArithmeticError) as error:
        return f"cannot calculate {expression!r}: {error}"


def evaluate(expression: str) -> float:
    """The value of ``expression``.

    Raises:
        ValueError: it is more than arithmetic, or not even that.
        ArithmeticError: a division by zero, or a result that is too large.
    """
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError as error:
        raise ValueError("that is not an expression") from error


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            first, second = _value(left), _value(right)
            if isinstance(op, ast.Pow) and abs(second) > _LARGEST_EXPONENT:
                raise ValueError("the exponent is too large")
            result = _BINARY[type(op)](first, second)
            if isinstance(result, complex):
                raise ValueError("the result is no real number")
            return result
    raise ValueError("only numbers, + - * / // % ** and parentheses")
