"""``python -m experiments``: the experiments, a line each."""

import ast
from pathlib import Path


def list_experiments() -> dict[str, str]:
    """Name of each experiment and the first line of its docstring, without importing any.

    Example:
        >>> "compare_ctc" in list_experiments()
        True
    """
    experiments = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        tree = ast.parse(path.read_text())
        targets = [n.targets[0] for n in tree.body if isinstance(n, ast.Assign)]
        if any(isinstance(target, ast.Name) and target.id == "RECIPES" for target in targets):
            experiments[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return experiments


if __name__ == "__main__":
    print("Experiments; each is run as: python -m experiments.NAME RECIPE   (--help for options)\n")
    for name, line in list_experiments().items():
        print(f"  {name:20}  {line}")
