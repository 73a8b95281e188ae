"""The house's rules, read from the import statements: docs/architecture.md."""

import ast
import functools
from pathlib import Path

import pytest

from nic_helpers.settings import PROJECT

PACKAGE = PROJECT / "nic_helpers"
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 350, 60


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module(path: Path) -> str:
    """``attacks.sign`` of nic_helpers/attacks/sign.py; a face is its folder."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__").replace("__init__", "")


def imports(path: Path) -> set[str]:
    """The package's modules that a file imports, anywhere in it: those that define what it names."""
    known, found = {module(p) for p in FILES}, set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: line {node.lineno} imports relatively, which the rules do not read"
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "nic_helpers":
            inside = node.module.removeprefix("nic_helpers").removeprefix(".")
            for alias in node.names:
                whole = f"{inside}.{alias.name}".strip(".")
                found.add(whole if whole in known else inside)
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("nic_helpers.") for a in node.names if a.name.startswith("nic_helpers")}
    return found - {""}


def room(name: str) -> str:
    return name.split(".")[0]


def test_there_are_imports_to_read():
    assert "attacks.base" in imports(PACKAGE / "attacks" / "sign.py") and len(FILES) > 60


def test_no_two_files_import_each_other_by_any_way_round():
    graph = {module(p): imports(p) for p in FILES}
    state: dict[str, int] = {}

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert state.get(name) != 1, " → ".join((*way, name))
        if name not in state:
            state[name] = 1
            for other in graph.get(name, ()):
                visit(other, (*way, name))
            state[name] = 2

    for name in graph:
        visit(name, ())


def test_folders_are_one_level_deep_and_their_faces_define_nothing():
    assert all(len(p.relative_to(PACKAGE).parts) <= 2 for p in FILES)
    for path in PACKAGE.rglob("__init__.py"):
        for node in tree(path).body:
            names = [t.id for t in node.targets] if isinstance(node, ast.Assign) else []
            may = (["__all__"], ["__version__"]) if path.parent == PACKAGE else (["__all__"],)
            fine = isinstance(node, (ast.Import, ast.ImportFrom, ast.Expr)) or names in may
            assert fine, f"{path}: line {node.lineno}"


@pytest.mark.parametrize(
    "who, never",
    [
        ("codecs", {"attacks", "defences", "objectives", "metrics", "sweep", "analysis"}),
        ("attacks", {"defences", "sweep", "analysis"}),
        ("defences", {"attacks", "sweep", "analysis"}),
        ("sweep", {"analysis", "defences"}),
        ("analysis", {"sweep"}),
    ],
)
def test_floors_run_downwards(who, never):
    for path in FILES:
        if room(module(path)) == who and path.name not in ("__main__.py", "__init__.py"):
            above = {room(name) for name in imports(path)} & never
            assert not above, f"{path} imports from {above}"


@pytest.mark.parametrize("who", ["training", "course"])
def test_only_commands_open_the_door_to(who):
    for path in FILES:
        if room(module(path)) != who and path.name != "__main__.py":
            assert who not in {room(name) for name in imports(path)}, path


def test_single_files_import_no_room_above_them():
    for path in FILES:
        if len(path.relative_to(PACKAGE).parts) == 1 and path.name != "__init__.py":
            above = {room(name) for name in imports(path)} & {"attacks", "defences", "analysis", "sweep", "training", "course"}
            assert not above, f"{path} imports from {above}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno + 1 <= LONGEST_FUNCTION, node.name


def test_no_line_needs_to_be_left_unformatted():
    for path in FILES:
        assert "fmt: " + "skip" not in path.read_text(encoding="utf-8"), path
