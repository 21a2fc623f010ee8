"""The walls of ARCHITECTURE.md, checked: what imports what, who waits, what locks may name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = [ROOT / "crdt_state", ROOT / "sync_server", ROOT / "clients" / "python" / "crdt_client"]
MODULES = [module for package in PACKAGES for module in sorted(package.rglob("*.py"))]
LOCKS = [*sorted((ROOT / "requirements").glob("*.txt")), *sorted(ROOT.rglob("package-lock.json"))]
LOCKS = [lock for lock in LOCKS if "node_modules" not in lock.parts]


@cache
def parsed(module: Path) -> ast.Module:
    return ast.parse(module.read_text())


@cache
def imported_by(module: Path) -> set[str]:
    """The first parts of every absolute import in a file, wherever it stands."""
    found = set()
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_there_are_modules_to_check() -> None:
    assert len(MODULES) > 40
    assert len(LOCKS) >= 5


def test_imports_point_down() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--config", "importlinter.toml"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


OWNERS = {
    "aiosqlite": r"crdt_state/storage/sqlite\w*\.py",
    "apsw": r"crdt_state/simulator/\w+\.py",
    "joserfc": r"crdt_state/security/tokens\.py",
    "prometheus_client": r"sync_server/\w+\.py",
    "pycrdt": r"crdt_state/model/engine/\w+\.py",
    "pydantic": r"(sync_server/\w+|clients/python/crdt_client/commands/\w+)\.py",
    "sqlite3": r"crdt_state/storage/sqlite\w*\.py",
    "typer": r"clients/python/crdt_client/.+\.py",
    "uvloop": r"sync_server/server\.py",
    "websockets": r"crdt_state/transport/\w+\.py",
    "zstandard": r"crdt_state/protocol/peer/compression\.py",
}
"""Who may import a package, as a pattern over paths."""


def test_a_package_is_imported_by_its_owner_only() -> None:
    for package, owners in OWNERS.items():
        users = [str(m.relative_to(ROOT)) for m in MODULES if package in imported_by(m)]
        assert users, f"nobody imports {package}; drop the dependency or this line"
        strangers = [user for user in users if not re.fullmatch(owners, user)]
        assert not strangers, f"{package} is imported by {strangers}"


@pytest.mark.parametrize(
    "room", ["bridge", "merkle", "model", "ot", "protocol", "security", "sync", "topology"]
)
def test_below_the_replica_nothing_is_async(room: str) -> None:
    modules = sorted((ROOT / "crdt_state" / room).rglob("*.py"))
    assert modules
    for module in modules:
        waits = [
            node
            for node in ast.walk(parsed(module))
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
        ]
        assert not waits, f"{module.relative_to(ROOT)} waits in line {waits[0].lineno}"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_a_lock_names_no_host_and_no_path(lock: Path) -> None:
    text = lock.read_text()
    assert "sha256:" in text or "sha512-" in text, "a lock pins by hash"
    found = re.findall(r"https?://(?!github\.com/sponsors|opencollective\.com|\S*sponsor)\S+", text)
    found += re.findall(r"file:\S+|--(?:extra-)?index-url|--find-links|\"resolved\"", text)
    assert [link for link in found if "funding" not in link] == []


def test_every_public_name_is_there() -> None:
    for module in MODULES:
        tree = parsed(module)
        defined = {
            name.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for name in ast.walk(node)
            if isinstance(name, ast.Name)
        }
        defined |= {
            node.name
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        }
        defined |= {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in tree.body:
            is_all = isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
            )
            if is_all:
                missing = set(ast.literal_eval(node.value)) - defined
                assert not missing, f"{module.relative_to(ROOT)} exports {missing}"


def exported_by(module: str) -> set[str]:
    """What `__all__` of a module of ours says, with the modules below a package."""
    path = ROOT / module.replace(".", "/")
    names = {child.stem for child in path.glob("*.py")} if path.is_dir() else set()
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in parsed(source).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            names |= set(ast.literal_eval(node.value))
    return names


def test_server_and_clients_know_only_the_public_names_of_the_engine() -> None:
    above = [module for module in MODULES if "crdt_state" not in module.relative_to(ROOT).parts]
    seen = 0
    for module in above:
        for node in ast.walk(parsed(module)):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            if node.module.partition(".")[0] == "crdt_state":
                seen += 1
                private = {name.name for name in node.names} - exported_by(node.module)
                where = f"{module.relative_to(ROOT)}:{node.lineno}"
                assert not private, f"{where} imports {sorted(private)} from {node.module}"
    assert seen > 50
